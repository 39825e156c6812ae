"""Rotary positions: the formula of GPT-NeoX and LLaMA, and distances alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.model import Encoder
from sibert_jax.model.rotary import rotate
from tests.builders import model_config, random_params
from tests.model.attention_reference import rotated

LENGTH = 12
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, LENGTH)), jnp.int32)
VALID = jnp.ones((2, LENGTH), bool)


def test_the_rotation_is_that_of_gpt_neox_and_llama():
    rng = np.random.default_rng(1)
    x, position = rng.normal(size=(2, 7, 3, 8)), rng.integers(0, 1000, (2, 7))
    found = jax.jit(rotate)(jnp.asarray(x, jnp.float32), jnp.asarray(position, jnp.int32))
    np.testing.assert_allclose(found, rotated(x, position), atol=3e-4)
    near = position % 16
    found = jax.jit(rotate)(jnp.asarray(x, jnp.float32), jnp.asarray(near, jnp.int32))
    np.testing.assert_allclose(found, rotated(x, near), atol=3e-6)
    lengths = np.linalg.norm(np.asarray(found), axis=-1), np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(*lengths, rtol=1e-6)


def build(**changes):
    module = Encoder(model_config(positions="rotary", **changes))
    params = random_params(module.init, TOKENS, 0 * TOKENS, VALID, std=0.2)
    return module, jax.tree.map(jnp.asarray, params)


@pytest.mark.slow  # with documents in a row, and through the head: tests/tasks/causal_lm
@pytest.mark.parametrize("arch", ["sigpt", "gpt", "sibert", "bert"])
def test_features_depend_on_distances_and_on_the_order_of_tokens(arch):
    module, params = build(arch=arch)
    assert "position" not in params["params"]["embed"]
    run = jax.jit(functools.partial(module.apply, params))
    later = jnp.arange(LENGTH)[None] >= jnp.full((2, 1), 3)  # after three tokens of padding
    shifted, _ = run(jnp.roll(TOKENS, 3, axis=1), 0 * TOKENS, later)
    whole, _ = run(TOKENS, 0 * TOKENS, jnp.arange(LENGTH)[None] < jnp.full((2, 1), LENGTH - 3))
    np.testing.assert_allclose(shifted[:, 3:], whole[:, :-3], atol=2e-5)
    turned, _ = run(TOKENS[:, jnp.array([1, 0, *range(2, LENGTH)])], 0 * TOKENS, VALID)
    assert np.abs(turned[:, -1] - run(TOKENS, 0 * TOKENS, VALID)[0][:, -1]).max() > 1e-4


def test_heads_of_an_odd_width_are_refused():
    with pytest.raises(ConfigError, match=r'positions="rotary" turns pairs .* 5 features a head'):
        model_config(positions="rotary", width=10)
