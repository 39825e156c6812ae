"""Token ids on disk: documents are tokenized as a stream and memory-mapped."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.documents import Document
from sibert_jax.data.tokenizers.tokenizer import Tokenizer

CHUNK_CHARS = 2_000_000
PROGRESS_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class TokenCorpus:
    """Tokenized documents, split into sentences, without special tokens.

    Args:
      tokens: (T,) uint16 or int32, all tokens concatenated.
      sentence_starts: (S+1,) int64, where each sentence begins in `tokens`, and T.
      document_starts: (N+1,) int64, where each document begins in `sentence_starts`, and S.
      fingerprint: a hash of these arrays.
      num_bytes: size of the text in UTF-8, with a line end after each paragraph.
    """

    tokens: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray
    fingerprint: str
    num_bytes: int

    @property
    def num_documents(self) -> int:
        """N, the number of documents."""
        return len(self.document_starts) - 1

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
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
      vocab_size: determines the dtype of stored tokens.
    """

    def __init__(self, directory: pathlib.Path, name: str, vocab_size: int):
        self._dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)
        self._name = name
        self._paths = _paths(directory, name)
        self._files = [path.open("wb") for path in self._paths]
        self._num_tokens = 0
        self._num_sentences = 0
        self._num_documents = 0
        self._num_bytes = 0
        self.unigram_counts = np.zeros(vocab_size, np.int64)
        for file in self._files[1:]:
            file.write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, *_):
        for file in self._files:
            file.close()

    def append(
        self,
        ids: np.ndarray,
        sentence_lengths: np.ndarray,
        document_lengths: np.ndarray,
        num_bytes: int,
    ) -> None:
        """Appends documents; sentences and documents without tokens are dropped.

        Args:
          ids: (T,), the tokens of all documents.
          sentence_lengths: (S,) int64, tokens of each sentence, summing to T.
          document_lengths: (N,) int64, sentences of each document, summing to S.
          num_bytes: size of their text in UTF-8.
        """
        tokens_file, sentences_file, documents_file = self._files
        document_of_sentence = np.repeat(np.arange(len(document_lengths)), document_lengths)
        kept = sentence_lengths > 0
        kept_lengths = np.bincount(document_of_sentence[kept])
        kept_lengths = kept_lengths[kept_lengths > 0]
        sentence_ends = self._num_tokens + np.cumsum(sentence_lengths[kept])
        document_ends = self._num_sentences + np.cumsum(kept_lengths)
        tokens_file.write(ids.astype(self._dtype).tobytes())
        sentences_file.write(sentence_ends.astype(np.int64).tobytes())
        documents_file.write(document_ends.astype(np.int64).tobytes())
        self._num_tokens += len(ids)
        self._num_sentences += len(sentence_ends)
        self._num_documents += len(document_ends)
        self._num_bytes += num_bytes
        self.unigram_counts += np.bincount(ids, minlength=len(self.unigram_counts))

    @property
    def num_documents(self) -> int:
        """The number of documents written so far."""
        return self._num_documents

    def description(self) -> dict:
        """Returns sizes and dtype of the corpus, for the manifest."""
        return {
            "name": self._name,
            "dtype": self._dtype.name,
            "num_tokens": self._num_tokens,
            "num_sentences": self._num_sentences,
            "num_documents": self._num_documents,
            "num_bytes": self._num_bytes,
        }


def open_corpus(directory: pathlib.Path, description: dict, files: dict) -> TokenCorpus:
    """Memory-maps a corpus written by `CorpusWriter`.

    Args:
      directory: the directory of its files.
      description: the result of `CorpusWriter.description`.
      files: the manifest entry of each file, with its `sha256`.
    """
    paths = _paths(directory, description["name"])
    dtypes = (np.dtype(description["dtype"]), np.dtype(np.int64), np.dtype(np.int64))
    arrays = [np.memmap(path, dtype, mode="r") for path, dtype in zip(paths, dtypes)]
    hashes = [files[path.name]["sha256"] for path in paths]
    fingerprint = digest(dtypes[0].name, *hashes)
    return TokenCorpus(*arrays, fingerprint, description["num_bytes"])


def _paths(directory: pathlib.Path, name: str) -> list[pathlib.Path]:
    return [directory / f"{name}.{part}" for part in ("tokens", "sentences", "documents")]


def write_corpora(
    documents: Iterable[tuple[bool, Document]],
    writers: tuple[CorpusWriter, CorpusWriter],
    tokenizer: Tokenizer,
    name: str,
    progress: Callable[[str], None],
) -> None:
    """Tokenizes documents and appends each to one of two corpora.

    Args:
      documents: pairs of (belongs to the second corpus, document).
      writers: the writers of the two corpora.
      tokenizer: the tokenizer.
      name: name of the documents in progress messages.
      progress: called with a message every few seconds and at the end.
    """
    meter = _Meter(name, progress)
    chunks: tuple[list[Document], list[Document]] = ([], [])
    num_chars = 0
    for second, document in documents:
        chunks[second].append(document)
        num_chars += sum(map(len, document))
        if num_chars >= CHUNK_CHARS:
            _flush(chunks, writers, tokenizer)
            meter.add(num_chars)
            num_chars = 0
    _flush(chunks, writers, tokenizer)
    meter.add(num_chars, last=True)


def _flush(chunks, writers, tokenizer) -> None:
    for chunk, writer in zip(chunks, writers):
        if chunk:
            texts = [tokenizer.split(document) for document in chunk]
            ids, lengths = tokenizer.encode_flat([text for parts in texts for text in parts])
            num_bytes = sum(len(p.encode()) + 1 for document in chunk for p in document)
            document_lengths = np.array([len(parts) for parts in texts])
            writer.append(ids, lengths, document_lengths, num_bytes)
            chunk.clear()


class _Meter:
    """Reports how much has been tokenized and how fast."""

    def __init__(self, name: str, progress: Callable[[str], None]):
        self._name = name
        self._progress = progress
        self._start = self._said = time.monotonic()
        self._num_chars = 0

    def add(self, num_chars: int, last: bool = False) -> None:
        self._num_chars += num_chars
        now = time.monotonic()
        if last or now - self._said > PROGRESS_SECONDS:
            self._said = now
            rate = self._num_chars / max(now - self._start, 1e-3)
            self._progress(
                f"{'tokenized' if last else 'tokenizing'} {self._name}: "
                f"{self._num_chars / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
            )
