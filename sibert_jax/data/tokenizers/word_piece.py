"""The WordPiece tokenizer."""

import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from sibert_jax.data.documents import Document, split_sentences
from sibert_jax.data.tokenizers.tokenizer import Tokenizer
from sibert_jax.data.tokenizers.vocabulary import (
    CONTINUATION,
    MAX_WORD_CHARS,
    PIECES,
    SPECIAL_PIECES,
    UNCASED,
    Cleaning,
    Vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from sibert_jax.errors import DataError

MAX_CACHED_WORDS = 400_000
_NEVER_IN_TEXT = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")


class WordPiece(Tokenizer):
    """Cleans text, splits it at spaces and punctuation, then matches the longest piece greedily.

    Words are encoded by Hugging Face `tokenizers` and cached, since spaces always end a word: this
    is many times faster than encoding whole texts and gives the same ids.

    Args:
      pieces: the WordPieces in id order; must include the five special tokens.
      name: name of the vocabulary in error messages.
      cleaning: the text cleaning; by default lower-casing and accent stripping.

    Raises:
      DataError: if special tokens are missing, or a WordPiece is empty or occurs twice.

    Example:
      >>> tokenizer = WordPiece([*SPECIAL_PIECES, "un", "##related", "."])
      >>> [tokenizer.pieces[i] for i in tokenizer.encode_batch(["Unrelated."])[0]]
      ['un', '##related', '.']

    References:
      Wu et al., Google's Neural Machine Translation System, https://arxiv.org/abs/1609.08144, §4.1.
    """

    kind, file_name = "wordpiece", PIECES

    def __init__(
        self,
        pieces: Sequence[str],
        name: str = "the vocabulary",
        cleaning: Cleaning = UNCASED,
    ):
        self.pieces, self.cleaning = tuple(pieces), cleaning
        ids = _checked_ids(self.pieces, name)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[piece] for piece in SPECIAL_PIECES
        )
        self.end_id = self.sep_id
        self.is_continuation = np.array([p.startswith(CONTINUATION) for p in self.pieces])
        self.is_special = np.array([bool(_NEVER_IN_TEXT.fullmatch(p)) for p in self.pieces])
        self.hash = _hash(self.pieces, cleaning)
        self._ids = ids
        self._clear_cache()

    @classmethod
    def read(cls, path: pathlib.Path) -> "WordPiece":
        """Reads a vocabulary: see `read_vocabulary`."""
        pieces, cleaning = read_vocabulary(path)
        return cls(pieces, f"the vocabulary {path}", cleaning)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes one WordPiece per line, and `tokenizer_config.json` beside the file."""
        write_vocabulary(pathlib.Path(path), Vocabulary(self.pieces, self.cleaning))

    def split(self, document: Document) -> list[str]:
        """Returns the sentences of a document."""
        return [s for paragraph in document for s in split_sentences(paragraph)]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the cleaned words separated by spaces; special tokens are skipped.

        Example:
          >>> WordPiece([*SPECIAL_PIECES, "un", "##related", "."]).decode([2, 5, 6, 7, 3])
          'unrelated .'
        """
        pieces = [self.pieces[i] for i in ids if not self.is_special[i]]
        joined = "".join(
            piece.removeprefix(CONTINUATION) if piece.startswith(CONTINUATION) else f" {piece}"
            for piece in pieces
        )
        return joined.removeprefix(" ")

    def filled(self, vocab_size: int) -> "WordPiece":
        """Returns this vocabulary, padded with "[unused0]", "[unused1]", ..."""
        names = (f"[unused{i}]" for i in itertools.count())
        spare = (name for name in names if name not in self._ids)
        fill = itertools.islice(spare, vocab_size - self.vocab_size)
        return WordPiece((*self.pieces, *fill), cleaning=self.cleaning)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array, each distinct word once."""
        words_by_text = [text.split(" ") for text in texts]
        words = list(itertools.chain.from_iterable(words_by_text))
        if not words:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._cache_words(words)
        word_N = np.fromiter(map(self._index.__getitem__, words), np.int64, len(words))
        length_N = self._lengths[word_N]
        end_N = np.cumsum(length_N)
        # Position of every output in the pool: its word's start plus its index within the word.
        shift_N = self._starts[word_N] - (end_N - length_N)
        ids = self._pool[np.repeat(shift_N, length_N) + np.arange(end_N[-1])]
        words_per_text = np.array([len(text_words) for text_words in words_by_text])
        text_end = end_N[np.cumsum(words_per_text) - 1]
        return ids, np.diff(text_end, prepend=0)

    def _cache_words(self, words: list[str]) -> None:
        """Encodes the words that are not cached yet."""
        unseen = dict.fromkeys(word for word in words if word not in self._index)
        if len(self._index) + len(unseen) > MAX_CACHED_WORDS:
            self._clear_cache()
            unseen = dict.fromkeys(words)
        if not unseen:
            return
        if self._model is None:
            self._model = word_piece_model(self._ids, self.cleaning)
        encodings = self._model.encode_batch_fast(list(unseen), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.array([len(word_ids) for word_ids in ids], np.int64)
        starts = len(self._pool) + np.cumsum(lengths) - lengths
        self._index.update(zip(unseen, itertools.count(len(self._index))))
        self._lengths = np.concatenate([self._lengths, lengths])
        self._starts = np.concatenate([self._starts, starts])
        new = np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths.sum()))
        self._pool = np.concatenate([self._pool, new])

    def _clear_cache(self) -> None:
        self._model = None
        self._index: dict[str, int] = {}
        self._starts = np.zeros(0, np.int64)
        self._lengths = np.zeros(0, np.int64)
        self._pool = np.zeros(0, np.int32)


def bert_normalizer(cleaning: Cleaning = UNCASED):
    """Returns BERT's text cleaning, which always drops control characters."""
    import tokenizers

    return tokenizers.normalizers.BertNormalizer(
        lowercase=cleaning.do_lower_case,
        strip_accents=cleaning.strip_accents,
        handle_chinese_chars=cleaning.tokenize_chinese_chars,
    )


def bert_pre_tokenizer():
    """Returns BERT's splitter: at white space and around every punctuation mark."""
    import tokenizers

    return tokenizers.pre_tokenizers.BertPreTokenizer()


def word_piece_model(ids: dict[str, int], cleaning: Cleaning = UNCASED):
    """Returns the Hugging Face tokenizer of a vocabulary, without special handling."""
    import tokenizers

    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS)
    )
    model.normalizer = bert_normalizer(cleaning)
    model.pre_tokenizer = bert_pre_tokenizer()
    return model


def _hash(pieces: tuple[str, ...], cleaning: Cleaning) -> str:
    """Returns a hash of everything that ids depend on; for uncased BERT, of the lines alone."""
    lines = list(pieces)
    if cleaning != UNCASED:
        lines += [f"{key}={value}" for key, value in dataclasses.asdict(cleaning).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checked_ids(pieces: tuple[str, ...], name: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if not piece:
            raise DataError(f"{name} has an empty line {i + 1}")
        if piece in ids:
            raise DataError(f"{name} has {piece!r} twice, on lines {ids[piece] + 1} and {i + 1}")
        ids[piece] = i
    missing = [piece for piece in SPECIAL_PIECES if piece not in ids]
    if missing:
        raise DataError(f"{name} lacks the special tokens {', '.join(missing)}")
    return ids
