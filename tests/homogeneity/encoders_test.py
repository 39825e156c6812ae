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


def build(**changes):
    """Return the features as a function of the encoder's parameters, and the parameters."""
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
    SIBERT: the branches join the stream, v + out = gain + stem = up + down (2 more equations).
    QK-norm: the same. Sandwich: every branch is normalized, no further equation.
    BERT: no stem; epsilons pin every tensor that is normalized and softmax q + k = 0, so that only
    value against output and query against key are left.
    """
    return {
        "sibert": 3 + 4 * layers,
        "sibert_qk_norm": 3 + 4 * layers,
        "sibert_sandwich": 3 + 6 * layers,
        "bert": 2 * layers,
    }[arch]


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        *((arch, {}) for arch in ("sibert", "sibert_qk_norm", "sibert_sandwich", "bert")),
        ("sibert", {"scan_layers": False}),
        ("sibert", {"attention_impl": "blockwise"}),
        pytest.param("sibert_qk_norm", {"scan_layers": False}, marks=pytest.mark.slow),
        pytest.param("sibert_sandwich", {"scan_layers": False}, marks=pytest.mark.slow),
        pytest.param("bert", {"scan_layers": False}, marks=pytest.mark.slow),
    ],
)
def test_symmetries_of_encoders_are_those_counted_by_hand(arch, changes, certify):
    features, params = build(arch=arch, **changes)
    report = certify(features, params)
    assert len(report.symmetries()) == count(arch, CONFIG.depth if "scan_layers" in changes else 1)
    assert report.is_invariant() == (arch != "bert")
    assert report.unknown_primitives() == []


def test_blocks_of_the_papers_encoder():
    features, params = build()
    blocks = analyse(features, params).blocks()
    assert ("embed/position", "embed/segment", "embed/token") in blocks
    for name in ("query", "key"):
        prefix = f"layers/layer/attention/{name}"
        assert (f"{prefix}/bias", f"{prefix}/kernel") in blocks
    assert sorted(name for block in blocks for name in block) == sorted(
        analyse(features, params).names
    )


def test_bert_is_stopped_by_the_epsilon_of_its_first_norm():
    features, params = build(arch="bert")
    found = analyse(features, params).obstruction()
    assert found.primitive == "add"
    assert found.constants == (None, pytest.approx(1e-6))
    assert found.location.file.endswith("norm.py")
    assert "embed_norm" in found.module


@pytest.mark.parametrize(
    "arch",
    [
        "sibert",
        *(pytest.param(f"sibert_{a}", marks=pytest.mark.slow) for a in ("qk_norm", "sandwich")),
    ],
)
def test_dropout_remat_and_bfloat16_keep_the_invariance(arch):
    features, params = build(
        arch=arch,
        dropout=0.1,
        remat=True,
        dtype="bfloat16",
        remat_policy="dots_with_no_batch_dims_saveable",
    )

    def loss(params, key):
        return jnp.sum(jnp.sin(features(params, key).astype(jnp.float32)))

    assert analyse(loss, params, jax.random.key(1)).is_invariant()
    gradient = analyse(jax.grad(loss), params, jax.random.key(1))
    assert set(jax.tree.leaves(gradient.degree())) == {-1}


def test_reparametrized_encoder_has_the_joint_symmetry_only(certify):
    features, params = build(arch="bert")
    report = certify(lambda p: features(reparametrize(p, CONFIG.init_std)), params)
    assert report.symmetries() == [dict.fromkeys(report.names, 1)]


def test_dead_row_keeps_the_encoder_invariant():
    features, params = build(qkv_bias=False)
    params["layers"]["layer"]["attention"]["query"]["kernel"] *= 0.0
    before = features(params)
    after = features(jax.tree.map(lambda leaf: 4.0 * leaf, params))
    assert jnp.array_equal(before, after)
    assert analyse(features, params).is_invariant()
