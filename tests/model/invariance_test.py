"""f(c·x) = f(x) for the scale-invariant encoders; each known mistake breaks it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model import AffineNorm, Encoder, attention, encoder, layers, normalize
from tests.builders import random_params

SCALES = (1e-3, 0.1, 10.0, 1e3)
slow = pytest.mark.slow
INVARIANT = ("sibert", "sibert_qk_norm", "sibert_sandwich")


def scaled(params, c):
    return jax.tree.map(lambda x: x * np.asarray(c, x.dtype), params)


def largest_change(module, params, inputs) -> float:
    apply = jax.jit(module.apply)
    reference = apply(params, *inputs)[0]
    changed = (apply(scaled(params, c), *inputs)[0] for c in SCALES)
    return max(float(np.abs(features - reference).max()) for features in changed)


@pytest.mark.parametrize(
    ("arch", "dtype"),
    [
        *((arch, "float32") for arch in INVARIANT),
        ("sibert", "bfloat16"),
        *(pytest.param(arch, "bfloat16", marks=slow) for arch in INVARIANT[1:]),
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


def test_bert_is_not_scale_invariant(cfg, inputs):
    module = Encoder(dataclasses.replace(cfg, arch="bert", norm_eps=1e-12))
    assert largest_change(module, random_params(module.init, *inputs), inputs) > 0.1


class GainBeforeBranch(nn.Module):
    """The mistake of a pre-norm with a learned gain: degree 1 into a branch that expects 0."""

    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return normalize(x, self.eps) * scale[None, None]


def with_weights(to_weights):
    """Attention with other weights than those of `relu_attention`."""

    def attend(q_BLHK, k_BLHK, v_BLHK, mask_BL, impl):
        logits_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BLHK)
        weights_BHLM, dead_BHL1 = to_weights(logits_BHLM, mask_BL[:, None, None])
        return jnp.einsum("BHLM,BMHK->BLHK", weights_BHLM, v_BLHK), dead_BHL1

    return attend


def added_epsilon(epsilon):
    def weights(logits, valid):
        scores = jnp.where(valid, jax.nn.relu(logits), 0.0)
        total = scores.sum(-1, keepdims=True)
        return scores / (total + epsilon), total <= 0

    return weights


def added_mask(logits, valid):
    return relu_weights(logits + jnp.where(valid, 0.0, -1e4), jnp.ones_like(valid))


FeedForward, Attention = layers.FeedForward, attention.Attention
relu_weights = attention.relu_weights


def biased_feed_forward(cfg, activation, out_bias, name):
    return FeedForward(cfg, activation, out_bias=True, name=name)


def gelu_feed_forward(cfg, activation, out_bias, name):
    return FeedForward(cfg, "gelu", out_bias, name=name)


def biased_attention(cfg, kind, qkv_bias, out_bias, name):
    return Attention(cfg, kind, qkv_bias, out_bias=True, name=name)


def plain_norm(epsilon):
    return lambda x, eps: normalize(x, epsilon, relative=False)


CONTROLS = {
    "stream of degree 1": (
        encoder,
        "AffineNorm",
        lambda eps, relative: lambda x: normalize(x, eps),
    ),
    "bias after the feed-forward": (layers, "FeedForward", biased_feed_forward),
    "bias after the attention": (layers, "Attention", biased_attention),
    "gain before the branches": (layers, "normalize", lambda x, eps: GainBeforeBranch(eps)(x)),
    "softmax": (attention, "relu_attention", with_weights(attention.softmax_weights)),
    "GELU": (layers, "FeedForward", gelu_feed_forward),
    "LayerNorm epsilon 1e-12": (layers, "normalize", plain_norm(1e-12)),
    "LayerNorm epsilon 1e-6": (layers, "normalize", plain_norm(1e-6)),
    "LayerNorm epsilon 1e-5": (layers, "normalize", plain_norm(1e-5)),
    "attention epsilon 1e-6": (attention, "relu_attention", with_weights(added_epsilon(1e-6))),
    "attention epsilon 1e-9": (attention, "relu_attention", with_weights(added_epsilon(1e-9))),
    "additive mask": (attention, "relu_attention", with_weights(added_mask)),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("softmax", "bias after the attention") else slow)
        for name in CONTROLS
    ],
)
def test_each_known_mistake_breaks_invariance(cfg, inputs, name, monkeypatch):
    monkeypatch.setattr(*CONTROLS[name])
    broken = Encoder(cfg)
    assert largest_change(broken, random_params(broken.init, *inputs), inputs) > 1e-3


def test_affine_norm_has_degree_one():
    x = np.random.default_rng(2).normal(size=(3, 16, 32)).astype(np.float32)
    module = AffineNorm(1e-6, relative=True)
    params, apply = random_params(module.init, x), jax.jit(module.apply)
    np.testing.assert_array_equal(apply(scaled(params, 8.0), x), 8 * apply(params, x))
