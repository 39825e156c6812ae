"""Token sequences of many lengths with labels or other columns, and the lengths to pad them to."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.tokenizer import Tokenizer

PRICE_IN_BATCHES = 32  # what one more length must save in an epoch, in batches of the longest


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences, each of one segment or two, one after another in one array.

    Args:
      tokens: (T,) int32, the tokens of all sequences.
      starts: (N+1,) int64, where each sequence begins in `tokens`, and T.
      second_starts: (N,) int32, the first place of segment 1 in each; its length if it has none.
      columns: further arrays with one row a sequence, such as labels; they go into the batches.
      pad_id: the token that fills up.
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
        """Puts separate sequences together; arguments as the fields."""
        ends = np.cumsum([len(tokens) for tokens in sequences], dtype=np.int64)
        flat = np.concatenate(sequences).astype(np.int32)
        starts = np.concatenate([np.zeros(1, np.int64), ends])
        return cls(flat, starts, np.asarray(second_starts, np.int32), columns, pad_id)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, tokens of each sequence."""
        return np.diff(self.starts)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a token, a segment or a column would."""
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
          tokens (B,L) int32; segments (B,L) int32, 0 or 1; valid (B,L) bool, False on padding; the
          columns, (B,...).
        """
        place_BL = np.broadcast_to(np.arange(seq_len), (len(indices_B), seq_len))
        valid_BL = place_BL < self.lengths[indices_B][:, None]
        source_BL = np.where(valid_BL, self.starts[indices_B][:, None] + place_BL, 0)
        second_BL = valid_BL & (place_BL >= self.second_starts[indices_B][:, None])
        return {
            "tokens": np.where(valid_BL, self.tokens[source_BL], np.int32(self.pad_id)),
            "segments": second_BL.astype(np.int32),
            "valid": valid_BL,
            **{name: column[indices_B] for name, column in self.columns.items()},
        }


def join_pair(
    first: np.ndarray, second: np.ndarray | None, tokenizer: Tokenizer, seq_len: int
) -> tuple[np.ndarray, int]:
    """Returns `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, and where segment 1 begins.

    What is too long loses tokens at the end of its longer part, one at a time (Devlin et al. 2019).
    """
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    if second is None:
        tokens = np.concatenate([cls, first[: seq_len - 2], sep])
        return tokens, len(tokens)
    excess = max(0, len(first) + len(second) - (seq_len - 3))
    difference = len(first) - len(second)
    to_level = min(excess, abs(difference))
    from_first, from_second = (excess - to_level) // 2, (excess - to_level + 1) // 2
    if difference > 0:
        from_first += to_level
    else:
        from_second += to_level
    first, second = first[: len(first) - from_first], second[: len(second) - from_second]
    return np.concatenate([cls, first, sep, second, sep]), len(first) + 2


def choose_seq_lens(lengths: np.ndarray, num_seq_lens: int, price: int = 0) -> tuple[int, ...]:
    """Returns the lengths to pad to that make the padding, and the price of the lengths, least.

    Args:
      lengths: (N,) int, tokens of each sequence.
      num_seq_lens: how many lengths there may be, at least 1; each is compiled once.
      price: tokens of padding that each further length must save.

    Returns:
      At most `num_seq_lens` lengths, ascending; the last is the longest of `lengths`.

    Example:
      >>> choose_seq_lens(np.array([3, 3, 4, 9, 10, 30]), 3)
      (4, 10, 30)
      >>> choose_seq_lens(np.array([3, 3, 4, 9, 10, 30]), 3, price=20)
      (10, 30)
    """
    values, counts = np.unique(lengths, return_counts=True)
    below = np.cumsum(counts)
    # costs[j]: tokens after padding all sequences up to values[j], with one length, then with more.
    costs, choices = values * below, []
    totals = [costs[-1]]
    is_shorter = np.tri(len(values), k=-1, dtype=bool).T  # [i, j]: i < j
    for count in range(1, num_seq_lens):
        # values[j] is the last length and values[i] the one before it.
        added = values[None, :] * (below[None, :] - below[:, None])
        split = np.where(is_shorter, costs[:, None] + added, np.iinfo(np.int64).max)
        choices.append(np.where(split.min(axis=0) < costs, split.argmin(axis=0), -1))
        costs = np.minimum(costs, split.min(axis=0))
        totals.append(costs[-1] + count * price)
    chosen, j = [], len(values) - 1
    for before in reversed(choices[: np.argmin(totals)]):
        if before[j] >= 0:
            chosen.append(j)
            j = before[j]
    chosen.append(j)
    return tuple(int(values[j]) for j in reversed(chosen))


def longest_of_batches(lengths: np.ndarray, global_batch_size: int) -> np.ndarray:
    """Returns the longest sequence of each batch that sorted sequences are cut into, ascending.

    A batch is padded to its longest, so in a set of few batches these, and not the lengths of all
    sequences, say which lengths to pad to are worth having.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences of a batch; the last one may have fewer.

    Example:
      >>> longest_of_batches(np.array([9, 3, 4, 3, 30]), 2)
      array([ 3,  9, 30])
    """
    sorted_N = np.sort(lengths)
    return np.append(sorted_N[global_batch_size - 1 : -1 : global_batch_size], sorted_N[-1])


def seq_lens_for_training(
    lengths: np.ndarray, global_batch_size: int, num_seq_lens: int, longest: int
) -> tuple[int, ...]:
    """Returns lengths to pad to where each sequence is read in every epoch.

    Compiling for a length takes as long as some 100 steps of a small model, and three epochs are
    usual. So there are only as many lengths as save the work of `PRICE_IN_BATCHES` batches an epoch
    each: one for a set of fewer batches than that.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences of a batch.
      num_seq_lens: how many lengths there may be.
      longest: tokens of the longest sequence that must fit, held-out ones included.

    Example:
      >>> seq_lens_for_training(np.arange(100), 2, num_seq_lens=8, longest=120)
      (120,)
      >>> seq_lens_for_training(np.arange(10_000) % 100, 2, num_seq_lens=8, longest=120)
      (13, 27, 41, 55, 69, 84, 99, 120)
    """
    to_pad = np.append(longest_of_batches(lengths, global_batch_size), longest)
    return choose_seq_lens(to_pad, num_seq_lens, price=PRICE_IN_BATCHES * longest)


def seq_lens_for_one_pass(lengths: np.ndarray, global_batch_size: int) -> tuple[int, ...]:
    """Returns lengths to pad to where each sequence is read once.

    There, compiling for a length takes as long as some batches do, and a few batches are padded
    faster than that: up to 16 of them have one length, and each 16 more have one more, at most 8.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences of a batch.

    Example:
      >>> seq_lens_for_one_pass(np.array([3, 7, 30]), 2)
      (30,)
    """
    num_batches = -(-len(lengths) // global_batch_size)
    return choose_seq_lens(lengths, min(8, -(-num_batches // 16)))
