"""Tokenised text on disk: written as a stream, read through the page cache."""

import dataclasses
import pathlib

import numpy as np

from sibert_jax.data.cache import digest


@dataclasses.dataclass(frozen=True, eq=False)
class TokenCorpus:
    """Documents of sentences of tokens, without special tokens.

    Args:
      tokens: (T,) uint16 or int32, all tokens one after another.
      sentence_starts: (S+1,) int64, where each sentence begins in `tokens`, and T.
      document_starts: (N+1,) int64, where each document begins in `sentence_starts`, and S.
      fingerprint: a hash of the three.
    """

    tokens: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray
    fingerprint: str

    @property
    def num_documents(self) -> int:
        """N."""
        return len(self.document_starts) - 1

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.tokens)

    @property
    def document_token_starts(self) -> np.ndarray:
        """(N+1,) int64, where each document begins in `tokens`, and T."""
        return self.sentence_starts[self.document_starts]


class CorpusWriter:
    """Appends documents to the files of one corpus; a context manager.

    Args:
      directory: an existing directory.
      name: the files are `<name>.tokens`, `<name>.sentences` and `<name>.documents`.
      vocab_size: decides the width of a stored token.
    """

    def __init__(self, directory: pathlib.Path, name: str, vocab_size: int):
        self._dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)
        self._name = name
        self._paths = _paths(directory, name)
        self._files = [path.open("wb") for path in self._paths]
        self._num_tokens = 0
        self._num_sentences = 0
        self._num_documents = 0
        self.unigram_counts = np.zeros(vocab_size, np.int64)
        for file in self._files[1:]:
            file.write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, *_):
        for file in self._files:
            file.close()

    def append(
        self, ids: np.ndarray, tokens_a_sentence: np.ndarray, sentences_a_document: np.ndarray
    ) -> None:
        """Appends whole documents; sentences and documents without tokens are left out.

        Args:
          ids: (T,) the tokens of all of them.
          tokens_a_sentence: (S,) int64, summing to T.
          sentences_a_document: (N,) int64, summing to S.
        """
        tokens_file, sentences_file, documents_file = self._files
        document_of_sentence = np.repeat(np.arange(len(sentences_a_document)), sentences_a_document)
        kept = tokens_a_sentence > 0
        document_lengths = np.bincount(document_of_sentence[kept])
        document_lengths = document_lengths[document_lengths > 0]
        sentence_ends = self._num_tokens + np.cumsum(tokens_a_sentence[kept])
        document_ends = self._num_sentences + np.cumsum(document_lengths)
        tokens_file.write(ids.astype(self._dtype).tobytes())
        sentences_file.write(sentence_ends.astype(np.int64).tobytes())
        documents_file.write(document_ends.astype(np.int64).tobytes())
        self._num_tokens += len(ids)
        self._num_sentences += len(sentence_ends)
        self._num_documents += len(document_ends)
        self.unigram_counts += np.bincount(ids, minlength=len(self.unigram_counts))

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return self._num_documents

    def description(self) -> dict:
        """What the manifest has to say of the corpus."""
        return {
            "name": self._name,
            "dtype": self._dtype.name,
            "num_tokens": self._num_tokens,
            "num_sentences": self._num_sentences,
            "num_documents": self._num_documents,
        }


def open_corpus(directory: pathlib.Path, description: dict, files: dict) -> TokenCorpus:
    """Maps a corpus that `CorpusWriter` wrote.

    Args:
      directory: where its files lie.
      description: what `CorpusWriter.description` said.
      files: the manifest's entry of each file, with its `sha256`.
    """
    paths = _paths(directory, description["name"])
    dtypes = (np.dtype(description["dtype"]), np.dtype(np.int64), np.dtype(np.int64))
    arrays = [np.memmap(path, dtype, mode="r") for path, dtype in zip(paths, dtypes)]
    hashes = [files[path.name]["sha256"] for path in paths]
    return TokenCorpus(*arrays, fingerprint=digest(dtypes[0].name, *hashes))


def _paths(directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    return [directory / f"{name}.{part}" for part in ("tokens", "sentences", "documents")]
