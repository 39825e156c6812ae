"""The kernels for TPUs: equal to the formula where they are interpreted, and lowered for a TPU."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sibert_jax.model.relu_attention import pallas_tpu
from sibert_jax.train import sharding
from tests.model.attention_reference import (
    assert_close,
    assert_no_number_is_no_dead_row,
    assert_within_rounding,
    computed,
    in_float64,
    inputs,
    reference,
)


@pytest.fixture(autouse=True)
def _blocks_of_128(monkeypatch):
    """Several blocks where an interpreter is still fast enough."""
    monkeypatch.setattr(pallas_tpu, "LONGEST_BLOCK", 128)


@pytest.fixture
def interpreted(monkeypatch):
    """The kernels on this CPU."""
    attend = functools.partial(pallas_tpu.attend, interpret=True)
    monkeypatch.setattr(pallas_tpu, "attend", attend)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("length", "num_segments"),
    [
        (200, 3),
        *(
            pytest.param(length, num_segments, marks=pytest.mark.slow)
            for length, num_segments in [(1, 1), (128, 1), (129, 2), (300, 1), (300, 5)]
        ),
    ],
)
def test_value_and_gradients_are_those_of_the_formula(length, num_segments):
    case = inputs(0, 3, length, 2, 8, num_segments)
    wanted = reference(*case)
    assert wanted[1].any()
    assert_close(in_float64("pallas", case), wanted, 1e-11)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.slow
@pytest.mark.parametrize("share_of_padding", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_dtype_stays_within_its_rounding_of_the_formula(dtype, share_of_padding):
    assert_no_number_is_no_dead_row("pallas")
    assert_within_rounding("pallas", dtype, share_of_padding, seed=3)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.slow
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
    case = [x[:1] for x in inputs(9, 2, 200, 1, 8, 2)]  # two blocks by two for each kernel
    found = jax.block_until_ready(computed.__wrapped__("pallas", *case))
    assert "RACE DETECTED" not in capsys.readouterr().out
    assert_close(found, reference(*case), 5e-6)


@pytest.mark.usefixtures("interpreted")
def test_each_device_computes_its_batch_and_heads():
    mesh = sharding.make_mesh(2, 2, 2)
    *floats, valid, segments = case = inputs(8, 4, 40, 2, 8, 2)
    heads, rows = (
        jax.NamedSharding(mesh, jax.P(("data", "fsdp"), *axes)) for axes in ((None, "tensor"), ())
    )
    floats = [jax.device_put(x, heads) for x in floats]
    valid, segments = (jax.device_put(x, rows) for x in (valid, segments))

    fn = sharding.on_mesh(functools.partial(computed.__wrapped__, "pallas"), mesh)
    compiled = jax.jit(fn).lower(*floats, valid, segments).compile()
    communication = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    assert not re.findall(communication, compiled.as_text())
    found = compiled(*floats, valid, segments)
    assert all(x.sharding.is_equivalent_to(heads, 4) for x in (found[0], *found[2:]))
    assert_close(found, reference(*case), 5e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_passes_are_lowered_for_a_tpu_at_the_sizes_of_base(dtype, monkeypatch):
    monkeypatch.undo()  # the blocks of a TPU
    x = jax.ShapeDtypeStruct((2, 512, 12, 64), dtype)
    valid, segments = (jax.ShapeDtypeStruct((2, 512), kind) for kind in (jnp.bool_, jnp.int32))
    fn = jax.jit(functools.partial(computed.__wrapped__, "pallas"))
    exported = jax.export.export(fn, platforms=["tpu"])(x, x, x, x, valid, segments)
    kernels = re.findall(r'kernel_name = "(\w+)"', exported.mlir_module())
    assert sorted(kernels) == [
        "relu_attention_key_gradients",
        "relu_attention_outputs",
        "relu_attention_query_gradients",
    ]
