"""Batches of one length each, so that little is padded, as a pure function of the step."""

from typing import Protocol

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.randomness import EpochPermutations
from sibert_jax.errors import DataError


class Rows(Protocol):
    """What batches are made of; `Sequences` is one."""

    lengths: np.ndarray  # (N,) int, tokens of each
    fingerprint: str  # changes whenever a row would

    def __len__(self) -> int: ...

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """The given ones padded to `seq_len`, "tokens" (B,L) among them."""


class BucketedBatches:
    """The batch of any step, without any state but the step.

    An epoch shuffles the sequences, sorts them stably by the length they are padded to, cuts the
    row into batches of B and shuffles the batches. So each sequence comes exactly once an epoch, a
    batch has one length, and where two lengths meet the shorter sequences are padded further. What
    the last batch lacks is filled up with rows of weight 0.

    Args:
      sequences: what to draw from, at least one.
      seq_lens: the lengths to pad to, ascending; the last one fits every sequence.
      global_batch_size: B, over all hosts.
      seed: of the order, 0 <= seed < 2**64.
      shuffle: False is for evaluation: one pass in the order of epoch 0, so that the first few
        batches already stand for the whole.

    Raises:
      DataError: if there is no sequence, or one is longer than all of `seq_lens`.
    """

    def __init__(
        self,
        sequences: Rows,
        seq_lens: tuple[int, ...],
        *,
        global_batch_size: int,
        seed: int,
        shuffle: bool,
    ):
        if not len(sequences):
            raise DataError("there are no examples to make batches of")
        if sequences.lengths.max() > seq_lens[-1]:
            raise DataError(
                f"an example has {sequences.lengths.max()} tokens, more than the {seq_lens[-1]} of "
                "the longest batch"
            )
        self.seq_lens, self.global_batch_size = seq_lens, global_batch_size
        self.fingerprint = digest(
            sequences.fingerprint, list(seq_lens), global_batch_size, seed, shuffle
        )
        self._sequences, self._shuffle = sequences, shuffle
        self._buckets_N = np.searchsorted(seq_lens, sequences.lengths)
        self._sequence_order = EpochPermutations(seed, len(sequences))
        self._batch_order = EpochPermutations(seed, self.steps_per_epoch, index=1)
        self._sorted: tuple[int, np.ndarray] | None = None  # the last epoch and its order

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every sequence once."""
        return -(-len(self._sequences) // self.global_batch_size)

    @property
    def padding_share(self) -> float:
        """The share of the tokens of epoch 0 that are padding, in [0, 1)."""
        last_row = np.arange(1, self.steps_per_epoch + 1) * self.global_batch_size - 1
        order_N = self._order(0)
        last_N = order_N[np.minimum(last_row, len(order_N) - 1)]
        lengths = np.asarray(self.seq_lens)[self._buckets_N[last_N]]
        return 1 - self._sequences.lengths.sum() / (lengths.sum() * self.global_batch_size)

    @property
    def description(self) -> str:
        """The lengths and what they cost, for people."""
        count = len(self.seq_lens)
        compiled = f", each of {count} lengths compiled when first met" if count > 1 else ""
        return (
            f"batches of {', '.join(map(str, self.seq_lens))} tokens a row{compiled}, "
            f"{self.padding_share:.1%} of them padding"
        )

    def __len__(self) -> int:
        if self._shuffle:
            raise TypeError("batches for training have no end")
        return self.steps_per_epoch

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Returns rows of the batch of one step.

        Args:
          step: 0 <= step, and < len(self) where shuffle=False.
          rows: which of the B rows, such as those of one host.

        Returns:
          What the sequences' `rows` gives for one of `seq_lens`, the same for all rows of the
          step; example_weights (B,) float32, 0 on rows that fill up; example_index (B,) int32,
          which of the sequences each row is.

        Raises:
          IndexError: if there is no such step.
        """
        if step < 0 or (not self._shuffle and step >= len(self)):
            raise IndexError(f"there is no batch of step {step}")
        epoch, place = divmod(step, self.steps_per_epoch)
        order_N = self._order(epoch)
        first = int(self._batch_order(epoch)[place]) * self.global_batch_size
        places_B = first + np.arange(self.global_batch_size)
        index_B = order_N[np.minimum(places_B, len(order_N) - 1)]
        weights_B = (places_B < len(order_N)).astype(np.float32)
        seq_len = self.seq_lens[self._buckets_N[index_B].max()]
        return {
            **self._sequences.rows(index_B[rows], seq_len),
            "example_weights": weights_B[rows],
            "example_index": index_B[rows],
        }

    def _order(self, epoch: int) -> np.ndarray:
        """The sequences of an epoch by the length they are padded to, (N,) int32."""
        if self._sorted is None or self._sorted[0] != epoch:
            shuffled_N = self._sequence_order(epoch)
            by_length_N = np.argsort(self._buckets_N[shuffled_N], kind="stable")
            self._sorted = (epoch, shuffled_N[by_length_N])
        return self._sorted[1]
