"""The interface of tokenizers, and the tokenizer of a vocabulary file."""

import abc
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from sibert_jax.data.byte_bpe_files import IDS, is_byte_bpe
from sibert_jax.data.documents import Document
from sibert_jax.data.vocabulary import PIECES
from sibert_jax.files import user_path


class Tokenizer(abc.ABC):
    """Text to ids and back: `WordPiece` or `ByteBPE`.

    A special token that is spelled out in a text is ordinary text.

    Attributes:
      kind: value of `data.tokenizer`.
      file_name: of the file that `save` writes and `load` reads.
      pieces: the tokens in the order of their ids, as the file has them.
      hash: of everything that ids depend on.
      end_id: the token that ends a document.
      pad_id: the token of padding.
      unk_id: the token of text that cannot be encoded; None: all text can be.
      is_special: (V,) bool, tokens that no text is encoded as.
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
            or a directory of Hugging Face's. `tokenizer_config.json` beside the file applies.

        Raises:
          DataError: a file is missing or broken.
        """
        # Both build on this class.
        from sibert_jax.data.byte_bpe import ByteBPE
        from sibert_jax.data.word_piece import WordPiece

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
          The ids of all texts one after another, (T,) int32, and the length of each, (N,) int64.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; special tokens have none."""

    @abc.abstractmethod
    def split(self, document: Document) -> list[str]:
        """Returns the texts of a document that are encoded one by one."""

    @abc.abstractmethod
    def filled(self, vocab_size: int) -> "Tokenizer":
        """This vocabulary, padded to `vocab_size` with tokens that never occur in text."""

    @abc.abstractmethod
    def save(self, path: str | pathlib.Path) -> None:
        """Writes the file that `load` reads, and what belongs beside it."""


def vocabulary_file(directory: pathlib.Path) -> pathlib.Path:
    """The vocabulary file that a run or an export wrote; it need not exist."""
    path = directory / IDS
    return path if path.is_file() else directory / PIECES
