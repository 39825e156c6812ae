"""The kernels: equal to the formula where they are interpreted, and lowered for TPUs and GPUs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sibert_jax.model.relu_attention import pallas_gpu, pallas_tpu
from sibert_jax.train import sharding
from tests.model.attention_reference import (
    assert_close,
    assert_no_number_is_no_dead_row,
    assert_nothing_is_gathered,
    assert_within_rounding,
    computed,
    in_float64,
    inputs,
    reference,
)

FOR_GPUS = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11), reason="JAX 0.11 lowers for GPUs only on one"
)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def kernels(request, monkeypatch):
    """Those of a backend, as far as JAX can tell, interpreted on this CPU; short blocks."""
    module = {"tpu": pallas_tpu, "gpu": pallas_gpu}[request.param]
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    monkeypatch.setattr(pallas_tpu, "LONGEST_BLOCK", 128)
    monkeypatch.setattr(module, "attend", functools.partial(module.attend, interpret=True))
    jax.clear_caches()  # of what was traced for another backend
    yield
    jax.clear_caches()


on_both = pytest.mark.parametrize("kernels", ["tpu", "gpu"], indirect=True)
on_tpu = pytest.mark.parametrize("kernels", ["tpu"], indirect=True)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("kernels", "length", "width", "num_segments"),
    [
        ("tpu", 130, 8, 3),
        ("gpu", 70, 8, 3),
        *(slow("tpu", *case) for case in [(1, 8, 1), (128, 8, 1), (129, 8, 2), (300, 8, 5)]),
        *(slow("gpu", *case) for case in [(1, 8, 1), (64, 16, 1), (65, 20, 2), (200, 33, 5)]),
    ],
    indirect=["kernels"],
)
@pytest.mark.parametrize("causal", [False, True])
def test_value_and_gradients_are_those_of_the_formula(length, width, num_segments, causal):
    case = inputs(0, 3, length, 2, width, num_segments)
    wanted = reference(*case, causal)
    assert wanted[1].any()
    assert_close(in_float64("pallas", case, causal), wanted, 1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@on_both
@pytest.mark.parametrize("share_of_padding", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_dtype_stays_within_its_rounding_of_the_formula(dtype, share_of_padding):
    assert_no_number_is_no_dead_row("pallas")
    assert_within_rounding("pallas", dtype, share_of_padding, seed=3)


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@on_tpu
def test_power_of_two_on_the_queries_changes_no_bit():
    q, *others = inputs(4, 3, 150, 2, 8)
    one = computed("pallas", q, *others)
    out, dead, dq, dk, dv = computed("pallas", q * 2.0**9, *others)
    for found, wanted in zip((out, dead, dq * 2.0**9, dk, dv), one, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_four_cores_do_not_race(monkeypatch, capsys):
    simulated = pltpu.InterpretParams(
        detect_races=True, num_cores_or_threads=4, uninitialized_memory="nan"
    )
    attend = functools.partial(pallas_tpu.attend, interpret=simulated)
    monkeypatch.setattr(pallas_tpu, "attend", attend)
    monkeypatch.setattr(pallas_tpu, "LONGEST_BLOCK", 128)
    case = [x[:1] for x in inputs(9, 2, 200, 1, 8, 2)]  # two blocks by two for each kernel
    found = jax.block_until_ready(computed.__wrapped__("pallas", *case))
    assert "RACE DETECTED" not in capsys.readouterr().out
    assert_close(found, reference(*case), 5e-6)


@pytest.mark.usefixtures("kernels")
@on_tpu
def test_each_device_computes_its_batch_and_heads():
    assert_nothing_is_gathered("pallas", sharding.make_mesh(2, 2, 2), ("data", "fsdp"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("backend", "platform"), [("tpu", "tpu"), pytest.param("gpu", "cuda", marks=FOR_GPUS)]
)
def test_both_passes_are_lowered_at_the_sizes_of_base(dtype, backend, platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jax.ShapeDtypeStruct((2, 512, 12, 64), dtype)
    valid, segments = (jax.ShapeDtypeStruct((2, 512), kind) for kind in (jnp.bool_, jnp.int32))
    traced = jax.jit(functools.partial(computed.__wrapped__, "pallas")).trace(
        x, x, x, x, valid, segments
    )
    module = traced.lower(lowering_platforms=(platform,)).as_text()
    kernels = re.findall(r'name = "(relu_attention_\w+)"', module)
    assert sorted(set(kernels)) == [
        "relu_attention_key_gradients",
        "relu_attention_outputs",
        "relu_attention_query_gradients",
    ]
