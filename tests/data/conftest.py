"""Small corpora in which every token occurs once, so that each can be traced to its position."""

import numpy as np
import pytest

from sibert_jax.data import CorpusConfig, TokenCorpus, WordPiece, load_corpora
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES

FIRST_ORDINARY = len(SPECIAL_PIECES)


def make_tokenizer(num_ordinary, is_continuation=lambda i: i % 3 == 2):
    """Token FIRST_ORDINARY + i is "t<i>", or "##t<i>" where it continues a word."""
    ordinary = (f"{'##' * is_continuation(i)}t{i}" for i in range(num_ordinary))
    return WordPiece([*SPECIAL_PIECES, *ordinary])


def make_corpus(documents):
    """Token i of the corpus is FIRST_ORDINARY + i; documents are lists of sentence lengths."""
    lengths = [length for document in documents for length in document]
    return TokenCorpus(
        tokens=np.arange(FIRST_ORDINARY, FIRST_ORDINARY + sum(lengths), dtype=np.int32),
        sentence_starts=np.cumsum([0, *lengths]),
        document_starts=np.cumsum([0, *map(len, documents)]),
        fingerprint=f"lengths {documents}",
        num_bytes=2 * sum(lengths),
    )


def assert_share(hits, share):
    """The share of the hits, each a mean of its own, within five standard deviations."""
    tolerance = 5 * np.sqrt(share * (1 - share) / len(hits))
    assert np.abs(np.mean(hits, axis=0) - share).max() < tolerance


@pytest.fixture
def progress():
    """The lines of progress of the latest `load`."""
    return []


@pytest.fixture
def load(tmp_path, progress):
    """Loads the corpora of a specification with the given fields."""

    def load(vocab_size=300, **fields):
        progress.clear()
        defaults = {"source": "text", "valid_fraction": 0.2, "vocab_train_bytes": 1_000_000}
        config = CorpusConfig(**{"cache_dir": str(tmp_path / "cache"), **defaults, **fields})
        return load_corpora(config, vocab_size=vocab_size, progress=progress.append)

    return load


@pytest.fixture
def write_text(tmp_path):
    def write(name, num_documents, seed=0):
        """Writes documents of two paragraphs of two sentences of made-up words; the path."""
        rng = np.random.default_rng(seed)
        words = ["".join(rng.choice(list("aeioulmnrst"), 5)) for _ in range(200)]

        def sentence():
            return " ".join(rng.choice(words, 8)).capitalize() + "."

        documents = [
            "\n".join(f"{sentence()} {sentence()}" for _ in range(2)) for _ in range(num_documents)
        ]
        (tmp_path / name).write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        return str(tmp_path / name)

    return write
