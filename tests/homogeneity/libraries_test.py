"""Layers that others wrote: Flax linen, Flax NNX and Equinox, with answers derived by hand."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sibert_jax.homogeneity import analyse

X = jax.random.normal(jax.random.key(9), (2, 6, 8))
KEY = jax.random.key(0)


def linen(module, x=X):
    """Return the module as a function of its parameters, and random parameters."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, KEY, x)
    variables = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
    params = variables.pop("params")
    return lambda p: module.apply({"params": p, **variables}, x, mutable=True)[0], params


def test_flax_attention_with_biases_has_two_symmetries(certify):
    report = certify(*linen(nn.MultiHeadDotProductAttention(num_heads=2)))
    # bias and kernel of q, k and v agree; softmax: q + k = 0; output bias = 0, so v + out = 0.
    assert len(report.symmetries()) == 2
    assert report.degree({"query": 1, "key": -1, "value": 1, "out": {"kernel": -1, "bias": 0}}) == 0


@pytest.mark.parametrize(
    "norm",
    [
        functools.partial(nn.LayerNorm, use_bias=False),
        functools.partial(nn.LayerNorm, use_bias=False, use_fast_variance=False),
        functools.partial(nn.BatchNorm, use_bias=False, use_running_average=False),
        functools.partial(nn.GroupNorm, use_bias=False, use_fast_variance=False, num_groups=2),
        nn.RMSNorm,
    ],
)
def test_flax_norm_frees_the_layer_before_it_without_epsilon(norm, certify):
    def net(epsilon):
        dense = nn.Dense(8, use_bias=False)
        return linen(nn.Sequential([dense, norm(epsilon=epsilon, use_scale=False)]))

    assert certify(*net(0.0)).symmetries() == [{"layers_0/kernel": 1}]
    assert analyse(*net(1e-6)).symmetries() == []


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(8, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, epsilon=0.0, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.attention(self.dropout(self.norm(self.first(x))))


def test_nnx_modules_pass_through_split_and_merge(certify):
    graph, params, rest = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)

    def fn(params, rest, x):
        fresh = jax.tree.map(jnp.copy, rest)  # a call counts up the dropout's stream in place
        return nnx.merge(graph, params, fresh)(x)

    report = certify(fn, params, rest, X)
    # first: kernel = bias, then normalized away (1). norm: gain = bias = n, absorbed by q, k and v:
    # kernel + n = bias each; q + k + (their norm) = 0; v + n + out = 0; out bias = 0.
    # Leaves 2 + 2 + 8 = 12; equations 1 + 1 + 3 + 1 + 1 + 1 = 8.
    assert len(report.symmetries()) == 4
    assert {"first/bias": 1, "first/kernel": 1} in report.symmetries()


def test_equinox_mlp_keeps_its_activation_static(certify):
    mlp = eqx.nn.MLP(8, 3, 8, 2, use_bias=False, use_final_bias=False, key=KEY)
    report = certify(lambda m, x: jax.vmap(m)(x), mlp, X[0])
    assert report.degree() == 3
    assert len(report.symmetries()) == 2
    gelu = eqx.nn.MLP(8, 3, 8, 2, activation=jax.nn.gelu, key=KEY)
    assert analyse(lambda m, x: jax.vmap(m)(x), gelu, X[0]).symmetries() == []
