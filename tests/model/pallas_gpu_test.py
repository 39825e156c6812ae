"""The kernels for GPUs: equal to the formula where they are interpreted, and lowered for a GPU."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from sibert_jax.model.relu_attention import pallas_gpu
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
def on_a_gpu(monkeypatch):
    """JAX's default backend, as far as the choice of kernels can tell."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()  # of what was traced for another backend
    yield
    jax.clear_caches()


@pytest.fixture
def interpreted(monkeypatch):
    """The kernels on this CPU."""
    attend = functools.partial(pallas_gpu.attend, interpret=True)
    monkeypatch.setattr(pallas_gpu, "attend", attend)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("length", "width", "num_segments"),
    [
        (130, 8, 3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(1, 8, 1), (64, 16, 1), (65, 20, 2), (200, 33, 5)]
        ),
    ],
)
def test_value_and_gradients_are_those_of_the_formula(length, width, num_segments):
    case = inputs(0, 3, length, 2, width, num_segments)
    wanted = reference(*case)
    assert wanted[1].any()
    assert_close(in_float64("pallas", case), wanted, 1e-11)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.slow
@pytest.mark.parametrize("share_of_padding", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_dtype_stays_within_its_rounding_of_the_formula(dtype, share_of_padding):
    assert_no_number_is_no_dead_row("pallas")
    assert_within_rounding("pallas", dtype, share_of_padding, seed=4)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="JAX 0.11 lowers for GPUs only on one")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_passes_are_lowered_for_a_gpu_at_the_sizes_of_base(dtype):
    x = jax.ShapeDtypeStruct((2, 512, 12, 64), dtype)
    valid, segments = (jax.ShapeDtypeStruct((2, 512), kind) for kind in (jnp.bool_, jnp.int32))
    traced = jax.jit(functools.partial(computed.__wrapped__, "pallas")).trace(
        x, x, x, x, valid, segments
    )
    module = traced.lower(lowering_platforms=("cuda",)).as_text()
    kernels = re.findall(r'name = "(relu_attention_\w+)"', module)
    assert sorted(kernels) == [
        "relu_attention_key_gradients",
        "relu_attention_outputs",
        "relu_attention_query_gradients",
    ]
