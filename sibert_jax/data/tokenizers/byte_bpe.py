"""Byte-level BPE, the tokenizer of GPT-2: text to ids and back, losslessly."""

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from sibert_jax.data.documents import Document
from sibert_jax.data.tokenizers.byte_bpe_files import (
    IDS,
    BPEVocabulary,
    Merge,
    read_byte_bpe,
    write_byte_bpe,
)
from sibert_jax.data.tokenizers.tokenizer import Tokenizer
from sibert_jax.data.tokenizers.vocabulary import MIN_PAIR_COUNT
from sibert_jax.errors import DataError

END = "<|endoftext|>"
# Tokens that no merge produces, such as END.
_SPECIAL = re.compile(r"<.+>|\[.+\]")


def _byte_characters() -> dict[int, str]:
    """Returns the character that represents each byte in the files, in GPT-2's id order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


CHARACTERS = _byte_characters()
BYTES = {character: byte for byte, character in CHARACTERS.items()}


class ByteBPE(Tokenizer):
    """Splits text into words by GPT-2's rule, then merges their bytes pair by pair.

    Every text can be encoded and decodes to itself. Text is not cleaned; a space belongs to the
    following word.

    Args:
      pieces: the tokens in id order, with one character per byte (`CHARACTERS`); must contain all
        bytes, the results of all merges and "<|endoftext|>". All others are special: text is never
        encoded as them.
      merges: pairs of tokens, in the order of their merging.
      name: name of the vocabulary in error messages.

    Attributes:
      num_bytes: (V,) int64, bytes of text per token, 0 for special ones. They sum to the bytes of a
        text.

    Raises:
      DataError: tokens are missing, occur twice, or are produced by no merge.

    Example:
      >>> tokenizer = ByteBPE.of_merges([("o", "n"), ("Ġ", "on")], vocab_size=259)
      >>> [tokenizer.pieces[i] for i in tokenizer.encode_batch(["on on é"])[0]]
      ['on', 'Ġon', 'Ġ', 'Ã', '©']

    References:
      Radford et al., Language Models are Unsupervised Multitask Learners, 2019, §2.2;
      Sennrich et al., https://arxiv.org/abs/1508.07909, Algorithm 1.
    """

    kind, file_name = "byte_bpe", IDS
    unk_id = None

    def __init__(
        self, pieces: Sequence[str], merges: Sequence[Merge], name: str = "the vocabulary"
    ):
        self.pieces, self.merges = tuple(pieces), tuple(merges)
        self._ids = {piece: i for i, piece in enumerate(self.pieces)}
        _check(self.pieces, self._ids, self.merges, name)
        ordinary = {*BYTES, *("".join(merge) for merge in self.merges)}
        self.is_special = np.array([piece not in ordinary for piece in self.pieces])
        self.num_bytes = np.array([len(piece) for piece in self.pieces]) * ~self.is_special
        self.end_id = self.pad_id = self._ids[END]
        lines = [self.kind, *self.pieces, *map(" ".join, self.merges)]
        self.hash = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        self._model = None

    @classmethod
    def of_merges(cls, merges: Iterable[Merge], vocab_size: int) -> "ByteBPE":
        """Builds a vocabulary in GPT-2's order: bytes, merges, "<|endoftext|>", unused tokens."""
        merges = tuple(merges)
        pieces = dict.fromkeys([*BYTES, *("".join(merge) for merge in merges), END])
        return cls(tuple(pieces), merges).filled(vocab_size)

    @classmethod
    def learned(cls, texts: Iterable[str], vocab_size: int) -> "ByteBPE":
        """Learns merges by joining the most frequent adjacent pair until there are enough.

        Args:
          texts: the texts to learn from, split as for encoding.
          vocab_size: the number of tokens, at least 257; if the text is too small for that many,
            the rest is "<|unused0|>", "<|unused1|>", ...
        """
        import tokenizers

        room = vocab_size - 1  # for END
        if room < len(BYTES):
            raise DataError(
                f"a trained byte-level vocabulary needs model.vocab_size of at least "
                f"{len(BYTES) + 1}, the bytes and {END}, not {vocab_size}"
            )
        model = _library_model(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=room,
            min_frequency=MIN_PAIR_COUNT,
            initial_alphabet=list(BYTES),
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        merges = json.loads(model.to_str())["model"]["merges"]
        return cls.of_merges(map(tuple, merges), vocab_size)

    @classmethod
    def read(cls, path: pathlib.Path) -> "ByteBPE":
        """Reads a vocabulary: see `read_byte_bpe`."""
        pieces, merges = read_byte_bpe(path)
        return cls(pieces, merges, f"the vocabulary {path}")

    def save(self, path: str | pathlib.Path) -> None:
        """Writes GPT-2's `vocab.json`, and beside it `merges.txt` and `tokenizer_config.json`."""
        write_byte_bpe(pathlib.Path(path), BPEVocabulary(self.pieces, self.merges))

    def split(self, document: Document) -> list[str]:
        """Returns the paragraphs of a document, each but the last with its line end."""
        return [f"{paragraph}\n" for paragraph in document[:-1]] + document[-1:]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array; see `Tokenizer.encode_flat`."""
        if self._model is None:
            import tokenizers

            bpe = tokenizers.models.BPE(self._ids, list(self.merges))
            self._model = _library_model(bpe)
        encodings = self._model.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.array([len(of_text) for of_text in ids], np.int64)
        flat = np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths.sum()))
        return flat, lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text; U+FFFD replaces bytes that are not UTF-8, such as part of a character.

        Example:
          >>> ByteBPE.of_merges([], 257).decode([71, 72, 256])
          'hi'
        """
        pieces = (self.pieces[i] for i in ids if not self.is_special[i])
        return bytes(BYTES[c] for c in itertools.chain(*pieces)).decode(errors="replace")

    def filled(self, vocab_size: int) -> "ByteBPE":
        """Returns this vocabulary, padded with "<|unused0|>", "<|unused1|>", ..."""
        names = (f"<|unused{i}|>" for i in itertools.count())
        spare = (name for name in names if name not in self._ids)
        fill = itertools.islice(spare, max(0, vocab_size - self.vocab_size))
        return ByteBPE((*self.pieces, *fill), self.merges)


def _library_model(bpe):
    """Returns the Hugging Face tokenizer around a model, without special handling."""
    import tokenizers

    model = tokenizers.Tokenizer(bpe)
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _check(pieces: Sequence[str], ids: dict[str, int], merges: Sequence[Merge], name: str) -> None:
    """Raises DataError for missing tokens, or merges of another vocabulary."""
    if len(ids) < len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if ids[piece] != i)
        raise DataError(f"{name} has {twice!r} twice")
    if END not in ids:
        raise DataError(
            f"{name} lacks {END}, the end-of-document token; name a GPT-2 vocabulary, or add the "
            "token"
        )
    if absent := [byte for byte, character in CHARACTERS.items() if character not in ids]:
        raise DataError(f"{name} lacks {len(absent)} of the 256 bytes, such as 0x{absent[0]:02x}")
    for pair in merges:
        for token in (*pair, "".join(pair)):
            if token not in ids:
                raise DataError(
                    f"{name} lacks {token!r}, of the merge {' '.join(pair)!r}; the merges belong "
                    "to another vocabulary"
                )
    made = {*BYTES, *("".join(pair) for pair in merges)}
    if apart := [p for p in pieces if p not in made and not _SPECIAL.fullmatch(p)]:
        raise DataError(
            f"{name} has {len(apart)} tokens that no merge produces, such as {apart[0]!r}; the "
            "merges belong to another vocabulary"
        )
