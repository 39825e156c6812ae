"""Integers are packed without loss, and a file of them says itself how to read it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import numpy as safetensors

from sibert_jax.errors import InteropError
from sibert_jax.interop import quantized
from sibert_jax.interop.quantized import Form, Quantized, pack, unpack

BITS = st.integers(1, 8)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)


@given(st.data(), BITS, SHAPES)
def test_unpacked_is_what_was_packed(data, bits, shape):
    codes = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    packed = pack(codes, bits)
    assert packed.nbytes == -(-codes.size * bits // 8)
    np.testing.assert_array_equal(unpack(packed, bits, shape), codes)


# Shape, inputs, and the same product by groups of two inputs in numpy.
FORMS = [
    ((6, 4), (0,), lambda w: w.T.reshape(4, 3, 2)),
    ((6, 2, 3), (0,), lambda w: w.reshape(6, 6).T.reshape(6, 3, 2)),
    ((2, 3, 4), (0, 1), lambda w: w.reshape(6, 4).T.reshape(4, 3, 2)),
    ((5, 6), (1,), lambda w: w.reshape(5, 3, 2)),
]


@pytest.mark.parametrize(("shape", "inputs", "groups"), FORMS)
def test_groups_are_consecutive_inputs_of_an_output(shape, inputs, groups):
    form = Form(shape, inputs, 4, 2, False)
    w = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(form.grouped(w), groups(w))
    assert form.grouped(w).shape == form.grouped_shape
    np.testing.assert_array_equal(form.ungrouped(form.grouped(w)), w)


def random_matrix(form: Form) -> Quantized:
    rng, shape = np.random.default_rng(0), form.grouped_shape
    zero = rng.integers(0, 2**form.bits, shape[:2], np.uint8)
    if form.symmetric:
        zero[:] = 2 ** (form.bits - 1)
    codes = rng.integers(0, 2**form.bits, shape, np.uint8)
    return Quantized(form, codes, rng.normal(size=shape[:2]).astype(np.float32), zero)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_file_gives_back_integers_and_floats(tmp_path, symmetric):
    matrix = random_matrix(Form((2, 3, 4), (0, 1), 3, 3, symmetric))
    bias = np.arange(4, dtype=np.float32)
    quantized.write(tmp_path / "a", {"out/kernel": matrix, "out/bias": bias})
    found = quantized.read(tmp_path / "a")
    for name in ("codes_OGJ", "scale_OG", "zero_OG"):
        np.testing.assert_array_equal(getattr(found["out/kernel"], name), getattr(matrix, name))
    np.testing.assert_array_equal(found["out/bias"], bias)
    w = matrix.scale_OG[..., None] * (matrix.codes_OGJ - matrix.zero_OG[..., None].astype(float))
    floats = quantized.dequantized(found)["out/kernel"]
    np.testing.assert_allclose(floats, w.reshape(4, 6).T.reshape(2, 3, 4), rtol=1e-6)
    assert matrix.nbytes == 9 + 32 + (0 if symmetric else 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w.scale": None}, "lacks a part or is of another size .'w.scale'"),
        ({"w.codes": np.zeros(2, np.uint8)}, "lacks a part or is of another size"),
    ],
)
def test_a_file_without_a_part_is_one_sentence(tmp_path, change, message):
    path = tmp_path / "a"
    quantized.write(path, {"w": random_matrix(Form((6, 4), (0,), 4, 2, False))})
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors = safetensors.load_file(path) | change
    kept = {name: array for name, array in tensors.items() if array is not None}
    safetensors.save_file(kept, path, metadata=metadata)
    with pytest.raises(InteropError, match=message):
        quantized.read(path)
