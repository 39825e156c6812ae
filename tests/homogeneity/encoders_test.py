"""The encoders of `sibert_jax.model` and both heads: their symmetries, counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse
from sibert_jax.model import Encoder, ModelConfig, reparametrize

TOKENS = jnp.arange(12).reshape(2, 6)
SEGMENTS = jnp.array([[0, 0, 0, 1, 1, 1]] * 2)
VALID = jnp.arange(6)[None] < jnp.array([[6], [4]])
SIZES = {"vocab_size": 13, "max_len": 8, "width": 8, "depth": 2, "num_heads": 2, "ffn_width": 12}
CONFIG = ModelConfig(**SIZES, qkv_bias=True)
ARCHITECTURES = ("sibert", "sibert_qk_norm", "sibert_sandwich", "bert")


def build(**changes):
    """Return the features as a function of the encoder's parameters, and these."""
    encoder = Encoder(dataclasses.replace(CONFIG, **changes))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), TOKENS, SEGMENTS, VALID)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)

    @jax.jit
    def features(params, dropout_key=None):
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        return encoder.apply(
            {"params": params}, TOKENS, SEGMENTS, VALID,
            deterministic=dropout_key is None, rngs=rngs,
        )[0]  # fmt: skip

    return features, params


def count(arch, layers):
    """Count leaves minus equations.

    Outside the layers: three embeddings are added (2 equations), gain and bias of the norm (1), the
    stem: 6 leaves. In a layer 10 leaves: q, k, v, up with their biases (4 equations), out, down.
    SIBERT and QK-norm: the branches join the stream, v + out = gain + stem = up + down (2 more).
    Sandwich: every branch is normalized. BERT: value against output and query against key.
    """
    if arch == "bert":
        return 2 * layers
    return 3 + (6 if arch == "sibert_sandwich" else 4) * layers


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        *((arch, {}) for arch in ARCHITECTURES),
        ("sibert", {"scan_layers": False}),
        ("sibert", {"attention_impl": "blockwise"}),
        ("sibert", {"attention_window": 2}),
        ("sibert_sandwich", {"scan_layers": False}),
    ],
)
def test_symmetries_of_encoders_are_those_counted_by_hand(arch, changes):
    features, params = build(arch=arch, **changes)
    report = analyse(features, params)
    assert len(report.symmetries()) == count(arch, CONFIG.depth if "scan_layers" in changes else 1)
    assert report.is_invariant() == (arch != "bert")
    embeddings = ("embed/position", "embed/segment", "embed/token")
    assert (embeddings in report.blocks()) == (arch != "bert")
    assert report.unknown_primitives() == []


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=[pytest.mark.slow] if "_" in a else []) for a in ARCHITECTURES]
)
def test_symmetries_of_encoders_hold_numerically(arch, certify):
    certify(*build(arch=arch, depth=1))


def test_dropout_remat_and_bfloat16_keep_the_invariance():
    policy = "dots_with_no_batch_dims_saveable"
    features, params = build(dropout=0.1, remat=True, remat_policy=policy, dtype="bfloat16")

    def loss(params, key):
        return jnp.sum(jnp.sin(features(params, key).astype(jnp.float32)))

    assert analyse(loss, params, jax.random.key(1)).is_invariant()
    gradient = analyse(jax.grad(loss), params, jax.random.key(1))
    assert set(jax.tree.leaves(gradient.degree())) == {-1}


def test_reparametrized_encoder_has_the_joint_symmetry_only():
    features, params = build(arch="bert", depth=1)
    report = analyse(lambda p: features(reparametrize(p, CONFIG.init_std)), params)
    assert report.symmetries() == [dict.fromkeys(report.names, 1)]
