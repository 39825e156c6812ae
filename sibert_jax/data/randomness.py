"""Random numbers as a pure function of seed, purpose, epoch and index.

No generator outlives one draw: the only state of a run's data is its step.
"""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """The use of a stream of random numbers; the values are part of a run's definition."""

    SHUFFLE = 1
    PAIR = 2
    MASK = 3
    MIXTURE = 4


def generator(seed: int, purpose: Purpose, epoch: int, index: int) -> np.random.Generator:
    """Returns the generator of one (seed, purpose, epoch, index), independent of all others.

    Args:
      seed: the run's seed, 0 <= seed < 2**64.
      purpose: the use.
      epoch: the pass over the data.
      index: index of the example, or another number that distinguishes draws of one purpose.
    """
    # The low half of Philox's 256-bit counter is left to the draws.
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, purpose], np.uint64),
            counter=np.array([0, 0, epoch, index], np.uint64),
        )
    )


class EpochPermutations:
    """The order of the examples in each epoch: a permutation of n, keyed by (seed, epoch)."""

    def __init__(self, seed: int, size: int, purpose: Purpose = Purpose.SHUFFLE, index: int = 0):
        self._seed = seed
        self._size = size
        self._purpose = purpose
        self._index = index
        self._cache: dict[int, np.ndarray] = {}

    def __call__(self, epoch: int) -> np.ndarray:
        """Returns the permutation of an epoch, (size,) int32."""
        permutation = self._cache.get(epoch)
        if permutation is None:
            permutation = np.arange(self._size, dtype=np.int32)
            generator(self._seed, self._purpose, epoch, self._index).shuffle(permutation)
            # A batch that crosses the end of an epoch needs two.
            kept = sorted(self._cache)[-1:]
            self._cache = {key: self._cache[key] for key in kept} | {epoch: permutation}
        return permutation
