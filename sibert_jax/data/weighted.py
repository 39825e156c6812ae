"""Several sets of examples in fixed proportions."""

import fractions
from collections.abc import Sequence
from typing import Protocol

from sibert_jax.data.cache import digest
from sibert_jax.data.packed import Example
from sibert_jax.data.randomness import EpochPermutations, Purpose
from sibert_jax.errors import DataError

MAX_DENOMINATOR = 1_000_000


class Examples(Protocol):
    """What batches are made of; `PackedExamples`, `PairExamples` and `WeightedExamples` are."""

    seq_len: int
    fingerprint: str

    def __len__(self) -> int: ...

    def example(self, epoch: int, index: int) -> Example:
        """Returns tokens (L,), segments (L,) and whether the second span is a random one."""


class WeightedExamples:
    """Interleaves sets of examples so that each has its share of every stretch of the stream.

    Of any n consecutive examples, set k gives n·w_k/Σw but for fewer than 2 for each set before it
    in the list and itself. An epoch has as many examples as all sets together; a set that is drawn
    more often than its size begins again in an order of its own, and one drawn less often goes on
    in the next epoch where it was.

    Args:
      example_sets: the sets, of one sequence length.
      weights: one positive number a set; () means in proportion to size, which gives each example
        exactly once an epoch.
      seed: of the order within each set.

    Raises:
      DataError: if the weights do not fit the sets or are not positive.
    """

    def __init__(self, example_sets: Sequence[Examples], weights: Sequence[float], seed: int):
        if not example_sets:
            raise DataError("there are no examples to mix")
        if weights and len(weights) != len(example_sets):
            raise DataError(f"{len(weights)} weights were given for {len(example_sets)} corpora")
        if not all(0 < weight < float("inf") for weight in weights):
            raise DataError(f"the weights of corpora must be positive, found {tuple(weights)}")
        seq_lens = {examples.seq_len for examples in example_sets}
        if len(seq_lens) > 1:
            raise DataError(f"the examples to mix have several lengths: {sorted(seq_lens)}")
        self.seq_len = seq_lens.pop()
        self._sets = tuple(example_sets)
        self._len = sum(map(len, example_sets))
        self.fingerprint = digest(
            "weighted",
            [examples.fingerprint for examples in example_sets],
            [float(weight) for weight in weights],
            seed,
        )
        exact = (
            [fractions.Fraction(weight).limit_denominator(MAX_DENOMINATOR) for weight in weights]
            if weights
            else [fractions.Fraction(len(examples)) for examples in example_sets]
        )
        # The share of set k among the sets k, k+1, ...
        self._shares = [weight / sum(exact[k:]) for k, weight in enumerate(exact)]
        self._permutations = [
            EpochPermutations(seed, len(examples), Purpose.MIXTURE, k)
            for k, examples in enumerate(example_sets)
        ]

    def __len__(self) -> int:
        return self._len

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example of one set; see `Examples`."""
        k, position = self.locate(epoch * self._len + index)
        set_epoch, place = divmod(position, len(self._sets[k]))
        return self._sets[k].example(set_epoch, int(self._permutations[k](set_epoch)[place]))

    def locate(self, stream_position: int) -> tuple[int, int]:
        """Returns which set a place of the stream draws from, and how often it was drawn before."""
        position = stream_position
        for k, share in enumerate(self._shares):
            drawn = position * share.numerator // share.denominator
            if (position + 1) * share.numerator // share.denominator > drawn:
                return k, drawn
            position -= drawn
        raise AssertionError("the share of the last set is 1")
