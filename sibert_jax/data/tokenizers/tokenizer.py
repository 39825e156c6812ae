"""The tokenizer interface, and loading of tokenizers from vocabulary files."""

import abc
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from sibert_jax.data.documents import Document
from sibert_jax.data.tokenizers.byte_bpe_files import IDS, is_byte_bpe
from sibert_jax.data.tokenizers.vocabulary import PIECES
from sibert_jax.files import user_path


class Tokenizer(abc.ABC):
    """Converts text to ids and back; implemented by `WordPiece` and `ByteBPE`.

    A special token spelled out in a text is treated as ordinary text.

    Attributes:
      kind: its value of `data.tokenizer`.
      file_name: name of the file that `save` writes and `load` reads.
      pieces: the tokens in id order, as in the file.
      hash: hash of everything that ids depend on.
      end_id: the end-of-document token.
      pad_id: the padding token.
      unk_id: the token for text that cannot be encoded; None: all text can be.
      is_special: (V,) bool, True for tokens that text is never encoded as.
    """

    kind: str
    file_name: str
    pieces: tuple[str, ...]
    hash: str
    end_id: int
    pad_id: int
    unk_id: int | None
    is_special: np.ndarray

    @staticmethod
    def load(path: str | pathlib.Path) -> "Tokenizer":
        """Reads a vocabulary.

        Args:
          path: `vocab.txt` or another file of WordPieces, `vocab.json` with `merges.txt` beside it,
            or a Hugging Face directory. A `tokenizer_config.json` beside the file is applied.

        Raises:
          DataError: a file is missing or broken.
        """
        # Imported here, as both are subclasses of this class.
        from sibert_jax.data.tokenizers.byte_bpe import ByteBPE
        from sibert_jax.data.tokenizers.word_piece import WordPiece

        path = user_path(path)
        return (ByteBPE if is_byte_bpe(path) else WordPiece).read(path)

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens, special ones included."""
        return len(self.pieces)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text, (length,) int32, without special tokens."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    @abc.abstractmethod
    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array.

        Returns:
          The concatenated ids of all texts, (T,) int32, and the length of each, (N,) int64.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; special tokens are skipped."""

    @abc.abstractmethod
    def split(self, document: Document) -> list[str]:
        """Splits a document into the texts that are encoded separately."""

    @abc.abstractmethod
    def filled(self, vocab_size: int) -> "Tokenizer":
        """Returns this vocabulary, padded to `vocab_size` with tokens that never occur in text."""

    @abc.abstractmethod
    def save(self, path: str | pathlib.Path) -> None:
        """Writes the file that `load` reads, and the files that belong beside it."""


def vocabulary_file(directory: pathlib.Path) -> pathlib.Path:
    """Returns the path of the vocabulary file of a run or an export; it need not exist."""
    path = directory / IDS
    return path if path.is_file() else directory / PIECES
