"""Labeled sequences, batched by length so that there is little padding."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.randomness import EpochPermutations
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences of one or two segments each, concatenated in one array.

    Args:
      tokens: (T,) int32, the tokens of all sequences.
      starts: (N+1,) int64, where each sequence begins in `tokens`, and T.
      second_starts: (N,) int32, where segment 1 begins in each; its length if it has none.
      columns: further arrays with one row per sequence, such as labels, to be batched too.
      pad_id: the padding token.
    """

    tokens: np.ndarray
    starts: np.ndarray
    second_starts: np.ndarray
    columns: dict[str, np.ndarray]
    pad_id: int

    @classmethod
    def of(
        cls,
        sequences: Sequence[np.ndarray],
        second_starts: Sequence[int],
        columns: dict[str, np.ndarray],
        pad_id: int,
    ) -> "Sequences":
        """Concatenates separate sequences; other arguments as the fields."""
        ends = np.cumsum([len(tokens) for tokens in sequences], dtype=np.int64)
        flat = np.concatenate(sequences).astype(np.int32)
        starts = np.concatenate([np.zeros(1, np.int64), ends])
        return cls(flat, starts, np.asarray(second_starts, np.int32), columns, pad_id)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each sequence, (N,) int64."""
        return np.diff(self.starts)

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever a token, a segment or a column changes."""
        arrays = {"tokens": self.tokens, "starts": self.starts, "second": self.second_starts}
        arrays |= {f"column {name}": column for name, column in self.columns.items()}
        hashes = {
            name: hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
            for name, array in arrays.items()
        }
        return digest("sequences", hashes, self.pad_id)

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """Returns the given sequences padded to `seq_len`.

        Returns:
          tokens (B,L) int32; segments (B,L) int32, 0 or 1; attention_mask (B,L) bool, False on
          padding; the columns, (B,...).
        """
        place_BL = np.broadcast_to(np.arange(seq_len), (len(indices_B), seq_len))
        mask_BL = place_BL < self.lengths[indices_B][:, None]
        source_BL = np.where(mask_BL, self.starts[indices_B][:, None] + place_BL, 0)
        second_BL = mask_BL & (place_BL >= self.second_starts[indices_B][:, None])
        return {
            "tokens": np.where(mask_BL, self.tokens[source_BL], np.int32(self.pad_id)),
            "segments": second_BL.astype(np.int32),
            "attention_mask": mask_BL,
            **{name: column[indices_B] for name, column in self.columns.items()},
        }


def join_pair(
    first: np.ndarray, second: np.ndarray | None, tokenizer: WordPiece, seq_len: int
) -> tuple[np.ndarray, int]:
    """Returns `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, and where segment 1 begins.

    A pair that is too long loses tokens from the end of its longer part, one at a time (Devlin et
    al., https://arxiv.org/abs/1810.04805; google-research/bert, run_classifier.py).
    """
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    if second is None:
        tokens = np.concatenate([cls, first[: seq_len - 2], sep])
        return tokens, len(tokens)
    excess = tokens_to_drop(len(first), len(second), seq_len - 3)
    first, second = first[: len(first) - excess[0]], second[: len(second) - excess[1]]
    return np.concatenate([cls, first, sep, second, sep]), len(first) + 2


def tokens_to_drop(len_a: int, len_b: int, max_len: int) -> tuple[int, int]:
    """Returns how many tokens each part of a pair loses so that both have `max_len` in total.

    One token at a time is dropped from the longer part, or from the second if they are equal.

    Example:
      >>> tokens_to_drop(9, 5, 11)
      (3, 0)
      >>> tokens_to_drop(9, 5, 7)
      (5, 2)
    """
    excess = max(0, len_a + len_b - max_len)
    to_level = min(excess, abs(len_a - len_b))
    from_a, from_b = (excess - to_level) // 2, (excess - to_level + 1) // 2
    return (from_a + to_level, from_b) if len_a > len_b else (from_a, from_b + to_level)


class Rows(Protocol):
    """Rows for batches; implemented by `Sequences`."""

    lengths: np.ndarray  # (N,) int, tokens of each row
    fingerprint: str  # changes whenever a row changes

    def __len__(self) -> int: ...

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """Returns arrays of the given rows padded to `seq_len`, including "tokens" (B,L)."""


class BucketedBatches:
    """Batches by length, as a pure function of the step.

    Each epoch shuffles the sequences, sorts them stably by padded length, cuts the list into
    batches of B and shuffles the batches. So each sequence occurs exactly once per epoch, and a
    batch has the padded length of its longest sequence. The last batch is padded with rows of
    weight 0.

    Args:
      sequences: the sequences to draw from, at least one.
      seq_lens: the lengths to pad to, ascending; every sequence fits the last one.
      global_batch_size: B, over all processes.
      seed: random seed of the order, 0 <= seed < 2**64.
      shuffle: False for evaluation: one pass in the order of epoch 0, so that the first batches are
        representative.

    Raises:
      DataError: if there are no sequences, or one is longer than all of `seq_lens`.
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
        self._sorted: tuple[int, np.ndarray] | None = None  # the latest epoch and its order

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches that contain every sequence once."""
        return -(-len(self._sequences) // self.global_batch_size)

    @property
    def padding_share(self) -> float:
        """The fraction of padding among the tokens of epoch 0, in [0, 1)."""
        last_row = np.arange(1, self.steps_per_epoch + 1) * self.global_batch_size - 1
        order_N = self._order(0)
        last_N = order_N[np.minimum(last_row, len(order_N) - 1)]
        lengths = np.asarray(self.seq_lens)[self._buckets_N[last_N]]
        return 1 - self._sequences.lengths.sum() / (lengths.sum() * self.global_batch_size)

    @property
    def description(self) -> str:
        """The lengths and their cost, in words."""
        count = len(self.seq_lens)
        compiled = f", {count} lengths, each compiled at its first use" if count > 1 else ""
        return (
            f"batches of {', '.join(map(str, self.seq_lens))} tokens per row{compiled}, "
            f"{self.padding_share:.1%} of them padding"
        )

    def __len__(self) -> int:
        if self._shuffle:
            raise TypeError("training batches have no end")
        return self.steps_per_epoch

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Returns rows of the batch of one step.

        Args:
          step: 0 <= step, and < len(self) where shuffle=False.
          rows: of the B rows, such as those of one process.

        Returns:
          The result of the sequences' `rows` for one of `seq_lens`, the same for all rows of the
          step; example_weights (B,) float32, 0 on padding rows of the last batch; example_index
          (B,) int32, the index of each row among the sequences.

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
        """Returns the sequences of an epoch in order of padded length, (N,) int32."""
        if self._sorted is None or self._sorted[0] != epoch:
            shuffled_N = self._sequence_order(epoch)
            by_length_N = np.argsort(self._buckets_N[shuffled_N], kind="stable")
            self._sorted = (epoch, shuffled_N[by_length_N])
        return self._sorted[1]
