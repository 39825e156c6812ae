"""The vocabulary of a specification: read from a file, or learnt from the training text."""

import collections
import pathlib
from collections.abc import Callable, Iterator

from sibert_jax.data.cache import FORMAT_VERSION, Cache, digest
from sibert_jax.data.held_out import HeldOutShare
from sibert_jax.data.source import Source, shortened
from sibert_jax.data.spec import CorpusSpec
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.data.wordpiece_training import train_pieces
from sibert_jax.errors import DataError, named_by


def find_tokenizer(
    spec: CorpusSpec,
    hashes: list,
    train: list[Source],
    share: HeldOutShare,
    cache: Cache,
    progress: Callable[[str], None],
) -> Tokenizer:
    """Returns the tokenizer of `spec.vocab`, or of a vocabulary that is learnt once.

    Args:
      spec: what to load.
      hashes: of what decides the training text, JSON values.
      train: the training text.
      share: the part of it that is held out, which a vocabulary does not see.
      cache: where a learnt vocabulary is kept.
      progress: called with a line of text now and then.

    Raises:
      DataError: if the vocabulary or the text cannot be used.
    """
    if spec.vocab:
        with named_by("data.vocab"):
            tokenizer = Tokenizer.load(spec.vocab)
        if tokenizer.vocab_size != spec.vocab_size:
            raise DataError(
                f"data.vocab: the vocabulary {spec.vocab} has {tokenizer.vocab_size} pieces but "
                f"the model wants {spec.vocab_size}; set model.vocab_size={tokenizer.vocab_size} "
                "or name another data.vocab"
            )
        return tokenizer

    def build(directory: pathlib.Path) -> dict:
        counts = _sampled_word_counts(spec.vocab_train_bytes, train, share, progress)
        progress(f"learning {spec.vocab_size:,} word pieces from {counts.total():,} words")
        Tokenizer(train_pieces(counts, spec.vocab_size)).save(directory / "vocab.txt")
        return {"vocab_size": spec.vocab_size}

    key = digest(
        "vocab", FORMAT_VERSION, hashes, spec.vocab_size, spec.vocab_train_bytes
    )
    return Tokenizer.load(cache.load_or_build(f"vocab-{key}", build).path / "vocab.txt")


def _sampled_word_counts(
    max_bytes: int, train: list[Source], share: HeldOutShare, progress: Callable[[str], None]
) -> collections.Counter:
    """Counts the words of about `max_bytes` bytes of paragraphs, taken evenly."""
    progress("reading " + shortened([source.name for source in train], "parts"))
    sizes = [
        sum(_num_bytes(paragraph) for paragraph in _training_paragraphs(source, share))
        for source in train
    ]
    taken_share = min(1.0, max_bytes / max(1, sum(sizes)))
    counts: collections.Counter = collections.Counter()
    for source in train:
        seen = taken = 0
        for paragraph in _training_paragraphs(source, share):
            seen += _num_bytes(paragraph)
            if taken < taken_share * seen:
                taken += _num_bytes(paragraph)
                counts.update(paragraph.split(" "))
    return counts


def _training_paragraphs(source: Source, share: HeldOutShare) -> Iterator[str]:
    for held_out, document in share.split(source):
        if not held_out:
            yield from document


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
