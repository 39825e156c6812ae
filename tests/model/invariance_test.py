"""f(c·x) = f(x) for the scale-invariant encoders; each known mistake breaks it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model import Encoder, attention, layers, normalize
from tests.builders import random_params

SCALES = (1e-3, 0.1, 10.0, 1e3)
slow = pytest.mark.slow
INVARIANT = ("sibert", "sibert_qk_norm", "sibert_sandwich")


def scaled(params, c):
    return jax.tree.map(lambda x: x * np.asarray(c, x.dtype), params)


@pytest.mark.parametrize(
    ("arch", "dtype"),
    [
        ("sibert", "float32"),
        *(pytest.param(arch, "float32", marks=slow) for arch in INVARIANT[1:]),
        *(pytest.param(arch, "bfloat16", marks=slow) for arch in INVARIANT),
    ],
)
def test_powers_of_two_change_no_bit_and_others_only_rounding(cfg, inputs, arch, dtype):
    module = Encoder(dataclasses.replace(cfg, arch=arch, dtype=dtype, qkv_bias=True))
    params = random_params(module.init, *inputs)
    run = jax.jit(module.apply)
    reference, dead = run(params, *inputs)
    for c in (2.0**-10, 2.0**3):
        features, dead_scaled = run(scaled(params, c), *inputs)
        np.testing.assert_array_equal(features, reference)
        np.testing.assert_array_equal(dead_scaled, dead)
    if dtype == "float32":
        for c in SCALES:
            np.testing.assert_allclose(run(scaled(params, c), *inputs)[0], reference, atol=1e-4)


@pytest.mark.parametrize(
    "arch",
    ["sibert", *(pytest.param(arch, marks=slow) for arch in INVARIANT[1:])],
)
def test_gradient_is_orthogonal_to_the_parameters(cfg, inputs, arch):
    module = Encoder(dataclasses.replace(cfg, arch=arch))
    params = random_params(module.init, *inputs)
    weights = np.random.default_rng(3).normal(size=(3, 16, 32)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * module.apply(x, *inputs)[0])))
    grads = gradient(params)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (params, grads)]
    x, g = (vector.astype(np.float64) for vector in flat)
    assert np.linalg.norm(g) > 0
    assert abs(x @ g) / (np.linalg.norm(x) * np.linalg.norm(g)) <= 1e-6
    shrunk = gradient(scaled(params, 8.0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b / 8), shrunk, grads)


class GainBeforeBranch(nn.Module):
    """A pre-norm with a learned gain: degree 1 into a branch that expects 0."""

    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return normalize(x, self.eps) * scale[None, None]


def softmax_attention(q_BLHK, k_BLHK, v_BLHK, mask_BL, documents_BL, **_):
    logits_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BLHK)
    weights_BHLM, dead_BHL1 = attention.softmax_weights(logits_BHLM, mask_BL[:, None, None])
    return jnp.einsum("BHLM,BMHK->BLHK", weights_BHLM, v_BLHK), dead_BHL1


def biased_feed_forward(cfg, activation, out_bias, name, made=layers.FeedForward):
    return made(cfg, activation, out_bias=True, name=name)


# More of them, without numbers: tests/homogeneity/broken_encoders_test.py.
CONTROLS = {
    "softmax": (attention, "relu_attention", softmax_attention),
    "bias after the feed-forward": (layers, "FeedForward", biased_feed_forward),
    "gain before the branches": (layers, "normalize", lambda x, eps: GainBeforeBranch(eps)(x)),
    "epsilon": (layers, "normalize", lambda x, eps: normalize(x, 1e-12, relative=False)),
    "BERT": (),
}


@pytest.mark.parametrize(
    "name", ["softmax", *(pytest.param(name, marks=slow) for name in [*CONTROLS][1:])]
)
def test_each_known_mistake_breaks_invariance(cfg, inputs, name, monkeypatch):
    if name == "BERT":
        cfg = dataclasses.replace(cfg, arch="bert", norm_eps=1e-12)
    else:
        monkeypatch.setattr(*CONTROLS[name])
    module = Encoder(cfg)
    params, apply = random_params(module.init, *inputs), jax.jit(module.apply)
    reference = apply(params, *inputs)[0]
    changes = (apply(scaled(params, c), *inputs)[0] - reference for c in SCALES)
    assert max(float(np.abs(change).max()) for change in changes) > 1e-3
