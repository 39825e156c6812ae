"""Builds the data of a run from rows of tokens, for the fine-tuning tasks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sibert_jax.data import (
    BucketedBatches,
    DataError,
    Rows,
    Tokenizer,
    WordPiece,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.cache import digest
from sibert_jax.data.documents import text_hash
from sibert_jax.errors import ConfigError
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.finetuning import listed
from sibert_jax.tasks.task import HeldOut, TaskData


def load_tokenizer(vocab: str, model: ModelConfig) -> WordPiece:
    """Loads the vocabulary of a fine-tuning run from `data.vocab`.

    Raises:
      ConfigError: none is named, or its size differs from the model's.
    """
    if not vocab:
        raise ConfigError(
            "data.vocab and checkpoint.init_from are both empty, so there is no vocabulary; name a "
            "vocabulary file, or a workdir to start from."
        )
    tokenizer = Tokenizer.load(vocab)
    if not isinstance(tokenizer, WordPiece):
        raise ConfigError(
            f"the vocabulary {vocab} is a byte-level BPE vocabulary without [CLS] and [SEP]; "
            "fine-tuning needs an encoder with a WordPiece vocabulary, such as BERT."
        )
    if tokenizer.vocab_size != model.vocab_size:
        raise ConfigError(
            f"the vocabulary {vocab} has {tokenizer.vocab_size} tokens but "
            f"model.vocab_size={model.vocab_size}; leave model.vocab_size unset, or name a "
            "vocabulary of that size."
        )
    return tokenizer


def sets_in_batches(
    sets: Mapping[str, Rows], *, global_batch_size: int, num_seq_lens: int, seed: int
) -> tuple[tuple[int, ...], dict[str, BucketedBatches]]:
    """Batches every set, with lengths chosen for the set "train", the only shuffled one.

    Args:
      sets: "train" and the held-out sets.
      global_batch_size: rows per batch.
      num_seq_lens: maximum number of lengths that batches are padded to.
      seed: random seed of the order of the training rows.

    Returns:
      The lengths, ascending, and the batches of each set.
    """
    longest = max(int(rows.lengths.max()) for rows in sets.values())
    train = sets["train"]
    seq_lens = seq_lens_for_training(train.lengths, global_batch_size, num_seq_lens, longest)
    return seq_lens, {
        name: BucketedBatches(
            rows,
            seq_lens,
            global_batch_size=global_batch_size,
            seed=seed if rows is train else 0,
            shuffle=rows is train,
        )
        for name, rows in sets.items()
    }


def one_pass(rows: Rows, global_batch_size: int) -> tuple[tuple[int, ...], BucketedBatches]:
    """Returns lengths and batches for a single pass over rows, in order."""
    seq_lens = seq_lens_for_one_pass(rows.lengths, global_batch_size)
    return seq_lens, BucketedBatches(
        rows, seq_lens, global_batch_size=global_batch_size, seed=0, shuffle=False
    )


def finetuning_data(
    train: BucketedBatches, held_out: Sequence[HeldOut], tokenizer: Tokenizer, main_metric: str
) -> TaskData:
    """Returns the data of a run, which evaluates on the first held-out set during training."""
    valid = held_out[0].batches
    return TaskData(
        train=train,
        valid=valid,
        fingerprint=digest(train.fingerprint, valid.fingerprint, tokenizer.hash),
        steps_per_epoch=train.steps_per_epoch,
        tokenizer=tokenizer,
        held_out=tuple(held_out),
        main_metric=main_metric,
        lower_is_better=False,
    )


def check_names(names: Sequence[str]) -> None:
    """Raises DataError for held-out sets whose predictions would go to the same file.

    Raises:
      DataError: two names are equal.
    """
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"data.valid_path and data.test_path name two sets {name!r}, whose predictions would "
            "go to one file; rename one of them"
        )


def hold_out(
    texts: tuple[list[str], ...],
    groups_N: np.ndarray,
    fraction: float,
    rows: str,
    progress: Callable[[str], None],
    group_names: Sequence[str] = (),
) -> np.ndarray:
    """Calls `held_out_mask` for an empty `data.valid_path`, and reports what is held out.

    Args:
      texts, groups_N, fraction: as for `held_out_mask`.
      rows: the word for examples in the message.
      progress: called with the message.
      group_names: names of the groups 0, 1, …, to be listed with their sizes.

    Raises:
      DataError: nothing is held out.
    """
    out_N = held_out_mask(texts, groups_N, fraction)
    if not out_N.any():
        raise DataError(
            f"data.valid_fraction={fraction} holds out 0 of {len(out_N)} {rows} (equal ones stay "
            "together); raise it, or set data.valid_path"
        )
    parts = [
        f"{name} {(out_N & (groups_N == i)).sum():,} of {(groups_N == i).sum():,}"
        for i, name in enumerate(group_names)
    ]
    progress(
        f"data.valid_path is empty, so {out_N.sum():,} of {len(out_N):,} {rows} are held out, by a "
        f"hash of their text{': ' if parts else ''}{listed(parts)}"
    )
    return out_N


def held_out_mask(
    texts: tuple[list[str], ...], groups_N: np.ndarray, fraction: float
) -> np.ndarray:
    """Selects, in each group, the fraction of examples with the lowest text hashes to hold out.

    Equal texts of a group stay together, and at least one example of each group is kept.

    Args:
      texts: one list of N strings per text column.
      groups_N: int, group of each example, such as its class.
      fraction: fraction to hold out, in (0, 1).

    Returns:
      (N,) bool, True for examples to hold out.
    """
    hash_N = np.array([text_hash(list(parts)) for parts in zip(*texts)], np.uint64)
    mask_N = np.zeros(len(hash_N), bool)
    for group in np.unique(groups_N):
        members = np.flatnonzero(groups_N == group)
        count = min(round(fraction * len(members)), len(members) - 1)
        if count:
            ranked = np.sort(hash_N[members])
            last, after = ranked[count - 1], ranked[count]
            mask_N[members] = hash_N[members] <= last if last < after else hash_N[members] < last
    return mask_N
