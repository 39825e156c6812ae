"""64 bits that tell whether an array is the one that was saved, whatever mesh it lies on.

digest(x) = Σ_i word_i · m(i) mod 2^64, over the elements' bits as integers, i the row-major index
and m(i) an odd pseudo-random number: multilinear hashing (Carter and Wegman 1979). Elements of 8
bytes are two words. An odd number has an inverse modulo 2^64, so one changed word always changes
the digest; several do except with a chance of at most 2^-32 (words that differ in their last bits:
2^-63). A sum of integers does not depend on its order, so devices and processes each add what they
hold.
"""

from collections.abc import Iterator

import jax
import numpy as np

PERIOD = 1 << 16
MASK = (1 << 64) - 1


def _odd(i: np.ndarray) -> np.ndarray:
    """An odd number for each index: SplitMix64 (Steele, Lea and Flood 2014), the last bit set."""
    z = (i.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


# m(i) = LOW[i mod PERIOD] · _odd(i div PERIOD): a product of odd numbers is odd, and a table is
# much cheaper than mixing every index.
LOW = _odd(np.arange(PERIOD))


def digest(array: np.ndarray) -> str:
    """The digest of a whole array on the host: 16 hexadecimal digits."""
    return as_text(partial_digest(array, (slice(None),) * array.ndim, array.shape))


def as_text(total: int) -> str:
    """16 hexadecimal digits."""
    return f"{total & MASK:016x}"


def partial_digest(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """The terms of the digest that come from a part of an array.

    Args:
      part: the elements; 1, 2, 4 or 8 bytes each.
      index: where they lie in the whole: a slice with step 1 for each axis.
      shape: of the whole.
    """
    size = part.dtype.itemsize
    if size == 8:
        index, shape, size = (*index, slice(None)), (*shape, 2), 4
    words = np.ascontiguousarray(part).reshape(-1).view(f"u{size}")
    total = position = 0
    for start, length in _runs(index, shape):
        while length:
            block, offset = divmod(start, PERIOD)
            count = min(length, PERIOD - offset)
            run = words[position : position + count].astype(np.uint64)
            high = int(_odd(np.array([block]))[0])
            total += high * int(np.dot(run, LOW[offset : offset + count]))
            start, length, position = start + count, length - count, position + count
    return total & MASK


def _runs(index: tuple[slice, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(first row-major index, length) of each stretch that is contiguous in the whole array."""
    ranges = [range(*part.indices(size)) for part, size in zip(index, shape)]
    axis = len(shape)  # the trailing axes from here on are whole
    while axis and len(ranges[axis - 1]) == shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)  # and one that may be cut makes a run with them
    inner = int(np.prod(shape[axis + 1 :], dtype=np.int64)) if shape else 1
    length = len(ranges[axis]) * inner if shape else 1
    if not length:
        return
    first = ranges[axis].start * inner if shape else 0
    strides = [int(np.prod(shape[k + 1 :], dtype=np.int64)) for k in range(axis)]
    for place in np.ndindex(*(len(part) for part in ranges[:axis])):
        outer = sum((r.start + k) * stride for r, k, stride in zip(ranges, place, strides))
        yield outer + first, length


def own_parts(array: jax.Array) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """What this process holds of an array, on the host; over all processes each element once."""
    shards = array.addressable_shards
    return [(np.asarray(s.data), s.index) for s in shards if s.replica_id == 0]
