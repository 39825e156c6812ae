"""A digest says whether an array changed, and does not depend on where it lies."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.checkpoint.manifest import as_text, digest, own_parts, partial_digest

DTYPES = ("float32", "bfloat16", "float16", "bool", "int8", "uint32", "float64", "int64")


def split_mix(i: int) -> int:
    """SplitMix64 in whole numbers, as Steele, Lea and Flood (2014) print it."""
    mask = 2**64 - 1
    z = (i + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def by_hand(array: np.ndarray) -> str:
    raw, size = array.tobytes(), min(array.dtype.itemsize, 4)
    total = 0
    for i in range(len(raw) // size):
        word = int.from_bytes(raw[i * size : (i + 1) * size], "little")
        total += word * (split_mix(i % 2**16) | 1) * (split_mix(i // 2**16) | 1)
    return f"{total % 2**64:016x}"


def random_array(shape, dtype) -> np.ndarray:
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    return raw.view(jnp.dtype(dtype)).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_sum_it_is_said_to_be(dtype):
    for shape in ((), (0,), (7,), (3, 5, 2), *([(3, 40_000)] if dtype == "uint32" else [])):
        array = random_array(shape, dtype)
        assert digest(array) == by_hand(array), shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_changed_bit_changes_it(dtype):
    array = random_array((5, 3), dtype)
    bits, good = [0] if dtype == "bool" else range(8), digest(array)
    for byte, bit in itertools.product(range(array.nbytes), bits):
        changed = array.copy()
        changed.view(np.uint8).reshape(-1)[byte] ^= 1 << bit
        assert digest(changed) != good


def test_changed_signs_and_moved_elements_change_it():
    array = random_array((40,), "float32")
    good = digest(array)
    for i, j in itertools.combinations(range(40), 2):
        changed = array.copy()
        changed[[i, j]] *= -1
        assert digest(changed) != good
    array = random_array((2**16 + 3,), "uint32")
    for other in (array[::-1], np.roll(array, 1), np.roll(array, 2**16)):
        assert digest(other) != digest(array)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("shape", [(8,), (16, 4), (8, 4, 6)])
def test_every_sharding_gives_the_same_digest(shape, dtype):
    array = random_array(shape, dtype)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    for spec in itertools.product((None, "x", "y", ("x", "y")), repeat=len(shape)):
        used = [a for axis in spec if axis for a in (axis if isinstance(axis, tuple) else (axis,))]
        counts = [{None: 1, "x": 4, "y": 2}.get(axis, 8) for axis in spec]
        if len(used) != len(set(used)) or any(n % count for n, count in zip(shape, counts)):
            continue
        where = NamedSharding(mesh, P(*spec))
        indices = where.devices_indices_map(shape).values()
        parts = {str(index): (array[index], index) for index in indices}.values()
        if dtype == "float32":  # 64 bits are not on in JAX
            parts = own_parts(jax.device_put(array, where))
        total = sum(partial_digest(part, index, shape) for part, index in parts)
        assert as_text(total) == digest(array), spec
