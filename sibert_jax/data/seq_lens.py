"""Chooses the lengths to pad sequences to: few, as each is compiled, with little padding."""

import numpy as np

PRICE_IN_BATCHES = 32  # longest batches that each further length must save per epoch


def choose_seq_lens(lengths: np.ndarray, num_seq_lens: int, price: int = 0) -> tuple[int, ...]:
    """Returns the lengths to pad to that minimize padding plus the price of the lengths.

    Args:
      lengths: (N,) int, tokens of each sequence.
      num_seq_lens: maximum number of lengths, at least 1; each is compiled once.
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
    """Returns the longest sequence of each batch of the sorted sequences, ascending.

    A batch is padded to its longest sequence, so with few batches these lengths, not those of all
    sequences, determine which padded lengths are worthwhile.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences per batch; the last one may have fewer.

    Example:
      >>> longest_of_batches(np.array([9, 3, 4, 3, 30]), 2)
      array([ 3,  9, 30])
    """
    sorted_N = np.sort(lengths)
    return np.append(sorted_N[global_batch_size - 1 : -1 : global_batch_size], sorted_N[-1])


def seq_lens_for_training(
    lengths: np.ndarray, global_batch_size: int, num_seq_lens: int, longest: int
) -> tuple[int, ...]:
    """Returns the lengths to pad to if each sequence is read in every epoch.

    Compiling one length takes as long as about 100 steps of a small model, and three epochs are
    usual. So each further length must save the work of `PRICE_IN_BATCHES` batches per epoch; a set
    with fewer batches gets a single length.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences per batch.
      num_seq_lens: maximum number of lengths.
      longest: tokens of the longest sequence that must fit, including held-out ones.

    Example:
      >>> seq_lens_for_training(np.arange(100), 2, num_seq_lens=8, longest=120)
      (120,)
      >>> seq_lens_for_training(np.arange(10_000) % 100, 2, num_seq_lens=8, longest=120)
      (13, 27, 41, 55, 69, 84, 99, 120)
    """
    to_pad = np.append(longest_of_batches(lengths, global_batch_size), longest)
    return choose_seq_lens(to_pad, num_seq_lens, price=PRICE_IN_BATCHES * longest)


def seq_lens_for_one_pass(lengths: np.ndarray, global_batch_size: int) -> tuple[int, ...]:
    """Returns the lengths to pad to if each sequence is read once.

    Compiling a length takes as long as several batches, so padding a few batches is faster: up to
    16 batches use one length, and each 16 more one more, at most 8.

    Args:
      lengths: (N,) int, tokens of each sequence.
      global_batch_size: sequences per batch.

    Example:
      >>> seq_lens_for_one_pass(np.array([3, 7, 30]), 2)
      (30,)
    """
    num_batches = -(-len(lengths) // global_batch_size)
    return choose_seq_lens(lengths, min(8, -(-num_batches // 16)))
