"""Windows of attention: which tokens a feature depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.model import Encoder
from tests.builders import random_params

LENGTH = 16


def reached(cfg, inputs) -> np.ndarray:
    """[i, j]: whether the feature at i changes with the token at j, in a sequence unpadded."""
    tokens_BL, segments_BL, _ = (x[1:2] for x in inputs)
    module, mask_BL = Encoder(cfg), jnp.ones_like(tokens_BL, bool)
    params = jax.tree.map(jnp.asarray, random_params(module.init, tokens_BL, segments_BL, mask_BL))
    changed_BL = jnp.where(jnp.eye(LENGTH, dtype=bool), (tokens_BL + 1) % 60, tokens_BL)

    @jax.jit
    @jax.vmap
    def features(tokens_L):
        return module.apply(params, tokens_L[None], segments_BL, mask_BL)[0][0]

    base_LD, *_ = every_JLD = features(jnp.concatenate([tokens_BL, changed_BL]))
    return np.asarray(jnp.any(every_JLD[1:] != base_LD[None], axis=-1)).T


def distance() -> np.ndarray:
    place = np.arange(LENGTH)
    return abs(place[:, None] - place)


@pytest.mark.parametrize(
    ("arch", "scan_layers"),
    [
        ("sibert_sandwich", True),
        ("sibert", False),
        ("bert", True),
        pytest.param("sibert_qk_norm", True, marks=pytest.mark.slow),
        pytest.param("bert_prenorm", True, marks=pytest.mark.slow),
    ],
)
def test_a_feature_depends_on_depth_times_window_tokens_to_each_side(
    cfg, inputs, arch, scan_layers
):
    local = dataclasses.replace(
        cfg, arch=arch, scan_layers=scan_layers, depth=2, attention_window=3, qkv_bias=True
    )
    # With ReLU weights some of these are 0, so not every token within reach is felt.
    found = reached(local, inputs)
    assert not found[distance() > 6].any()
    assert found[distance() == 0].all()
    assert found[distance() > 3].any()
    assert reached(dataclasses.replace(local, depth=1), inputs)[distance() > 3].sum() == 0


@pytest.mark.parametrize("scan_layers", [True, False])
def test_every_nth_layer_attends_to_all_tokens(cfg, inputs, scan_layers):
    mixed = dataclasses.replace(
        cfg, arch="bert", scan_layers=scan_layers, depth=2, attention_window=1,
        global_attention_every=2,
    )  # fmt: skip
    assert reached(mixed, inputs).all()
    assert dataclasses.replace(mixed, depth=5).reach == (1, 16, 1, 16, 1)


@pytest.mark.parametrize("arch", ["sibert", "bert"])
def test_a_window_as_long_as_the_sequence_changes_only_rounding(cfg, inputs, arch):
    module = Encoder(dataclasses.replace(cfg, arch=arch))
    windowed = Encoder(dataclasses.replace(cfg, arch=arch, attention_window=15))
    params = random_params(module.init, *inputs)
    wanted, dead = jax.jit(module.apply)(params, *inputs)
    found, found_dead = jax.jit(windowed.apply)(params, *inputs)
    mask_BL = np.asarray(inputs[2])
    np.testing.assert_allclose(found[mask_BL], wanted[mask_BL], atol=1e-5)
    np.testing.assert_array_equal(found_dead, dead)


def test_padding_within_a_window_is_not_attended_to(cfg, inputs):
    """And a query with padding alone in its window gives finite features."""
    tokens_BL, segments_BL, mask_BL = inputs
    module = Encoder(dataclasses.replace(cfg, arch="bert", attention_window=2))
    params = random_params(module.init, *inputs)
    run = jax.jit(module.apply)
    wanted = run(params, *inputs)[0]
    other_BL = jnp.where(mask_BL, tokens_BL, (tokens_BL + 7) % 60)
    found = run(params, other_BL, segments_BL, mask_BL)[0]
    np.testing.assert_array_equal(found[mask_BL], wanted[mask_BL])
    assert np.isfinite(found).all()


def test_a_global_layer_without_a_window_is_refused(cfg):
    with pytest.raises(ConfigError, match=r"global_attention_every=2 has no effect"):
        dataclasses.replace(cfg, global_attention_every=2)
