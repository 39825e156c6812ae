"""ReLU attention against its formula in float64: values, gradients, masks, dead rows, memory."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from sibert_jax.model import Encoder, relu_attention
from sibert_jax.model.relu_attention import blockwise, choose, relu_weights
from sibert_jax.train import sharding
from tests.builders import random_params
from tests.model.attention_reference import (
    assert_close,
    assert_no_number_is_no_dead_row,
    assert_nothing_is_gathered,
    computed,
    in_float64,
    inputs,
    reference,
)

FORMS = ("einsum", "blockwise")  # the kernels: pallas_tpu_test.py


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK", 8)


@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize(
    ("length", "num_segments"),
    [(21, 3), *(pytest.param(*x, marks=pytest.mark.slow) for x in [(1, 1), (8, 3), (21, 1)])],
)
@pytest.mark.parametrize("causal", [False, True])
def test_value_and_gradients_are_those_of_the_formula(impl, length, num_segments, causal):
    case = inputs(0, 3, length, 2, 4, num_segments)
    found = computed(impl, *case, causal)
    assert_close(found, reference(*case, causal), 2e-6)
    # And every query is orthogonal to its gradient.
    q, dq = (np.asarray(x, np.float64) for x in (case[0], found[2]))
    lengths = np.linalg.norm(q, axis=-1) * np.linalg.norm(dq, axis=-1)
    assert np.all(np.abs((q * dq).sum(-1)) <= 3e-6 * lengths.max())


@pytest.mark.parametrize("impl", FORMS)
@hypothesis.settings(max_examples=3)
@hypothesis.given(st.integers(0, 999), st.floats(0, 1), st.integers(1, 4), st.booleans())
def test_any_padding_and_packing(impl, seed, share_of_padding, num_segments, causal):
    case = inputs(seed, 2, 11, 2, 4, num_segments, share_of_padding)
    assert_close(in_float64(impl, case, causal), reference(*case, causal), 1e-11)


@pytest.mark.parametrize(
    ("impl", "dtype"),
    [
        ("einsum", jnp.float32),
        ("blockwise", jnp.bfloat16),
        pytest.param("einsum", jnp.bfloat16, marks=pytest.mark.slow),
        pytest.param("blockwise", jnp.float32, marks=pytest.mark.slow),
    ],
)
def test_power_of_two_on_the_queries_changes_no_bit(impl, dtype):
    *floats, valid, segments = inputs(4, 3, 21, 2, 4)
    q, k, v, d_out = floats = [jnp.asarray(x, dtype) for x in floats]
    one = computed(impl, *floats, valid, segments)
    assert all(x.dtype == dtype for x in (one[0], *one[2:]))
    wanted = reference(*(np.asarray(x, np.float32) for x in floats), valid, segments)
    assert_close(one, wanted, 2e-6 if dtype == jnp.float32 else 2e-2)
    for c in (2.0**-12, 2.0**9):
        out, dead, dq, dk, dv = computed(impl, q * c, k, v, d_out, valid, segments)
        for found, wanted in zip((out, dead, dq * c, dk, dv), one, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("impl", FORMS)
def test_dead_row_is_the_mean_of_its_valid_keys(impl):
    """And trains only the values; a row with a NaN among its scores is not dead."""
    ones = np.ones((1, 9, 1, 4), np.float32)
    v = np.random.default_rng(0).standard_normal(ones.shape).astype(np.float32)
    valid = np.arange(9)[None] < 6
    out, dead, dq, dk, dv = computed(impl, ones, -ones, v, ones, valid, None)  # of one segment
    assert dead.all()
    np.testing.assert_allclose(out, np.broadcast_to(v[:, :6].mean(1, keepdims=True), v.shape), 1e-5)
    assert not dq.any()
    assert not dk.any()
    np.testing.assert_allclose(dv[0, :, 0, 0], [9 / 6] * 6 + [0] * 3, 1e-6)
    assert_no_number_is_no_dead_row(impl)


def test_it_agrees_with_the_weights_that_dropout_acts_on():
    q, k, v, *_, valid, _ = inputs(7, 3, 12, 2, 4)
    scores = jnp.asarray(np.einsum("BLHK,BMHK->BHLM", q, k))
    weights, dead = jax.jit(relu_weights)(scores, valid[:, None, None])
    out, found_dead = jax.jit(relu_attention)(q, k, v, valid)
    np.testing.assert_allclose(out, jnp.einsum("BHLM,BMHK->BLHK", weights, v), atol=1e-6)
    np.testing.assert_array_equal(found_dead, dead)


def temporary_bytes(impl, length):
    shape = jax.ShapeDtypeStruct((1, length, 4, 64), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, length), bool)

    def loss(q, k, v, valid):
        return jnp.sum(relu_attention(q, k, v, valid, impl=impl)[0] ** 2)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    compiled = gradients.lower(shape, shape, shape, valid).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_long_sequences_need_little_memory_blockwise(monkeypatch):
    monkeypatch.undo()
    assert (choose("auto", 1023), choose("auto", 1024)) == ("einsum", "blockwise")
    assert temporary_bytes("blockwise", 8192) < temporary_bytes("einsum", 8192) / 20


@pytest.mark.parametrize("impl", ["blockwise", pytest.param("einsum", marks=pytest.mark.slow)])
def test_split_over_batch_and_heads_nothing_is_gathered(impl):
    assert_nothing_is_gathered(impl, sharding.make_mesh(4, 1, 2), "data")


def test_encoder_gives_the_same_features_by_every_form(cfg, inputs):
    params = random_params(Encoder(cfg).init, *inputs)
    einsum, other = (
        jax.jit(Encoder(dataclasses.replace(cfg, attention_impl=impl)).apply)(params, *inputs)[0]
        for impl in FORMS
    )
    np.testing.assert_allclose(einsum, other, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_impl": "fast"}, r"model\.attention_impl='fast' is unknown"),
        ({"attention_impl": "blockwise", "arch": "bert"}, r"model\.arch='bert' uses softmax"),
        ({"attention_impl": "pallas", "arch": "bert"}, r'model\.attention_impl="pallas" is for'),
        ({"attention_impl": "blockwise", "dropout": 0.1}, r"model\.dropout=0\.1"),
        ({"attention_impl": "pallas", "attention_window": 4}, r"model\.attention_window=4"),
    ],
)
def test_impossible_combinations_are_refused_by_their_keys(cfg, changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(cfg, **changes)
    with pytest.raises(ValueError, match="impl='fast' is unknown"):
        relu_attention(*[jnp.ones((1, 2, 1, 2))] * 3, jnp.ones((1, 2), bool), impl="fast")
