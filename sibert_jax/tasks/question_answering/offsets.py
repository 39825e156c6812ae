"""WordPieces with the characters they stand for, so that an answer is cut out of its own text.

Letters: T pieces of all texts together.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sibert_jax.data.tokenizer import Tokenizer, word_piece_model


class Pieces(NamedTuple):
    """Pieces of several texts, one text after another."""

    ids_T: np.ndarray  # int32, those of `Tokenizer.encode_batch`
    starts_T: np.ndarray  # int32, first character in the piece's text
    ends_T: np.ndarray  # int32, one behind its last character
    lengths: np.ndarray  # (texts,) int64, pieces of each text


class OffsetTokenizer:
    """Encodes texts as `Tokenizer` does, and remembers where each piece came from.

    `text[start:end]` holds what became the piece: the accents that were stripped, the capital that
    was lower-cased, the control characters that were dropped inside it. Pieces of one letter that
    Unicode takes apart (Hangul) share its place; an accent written behind its letter belongs to it.

    Args:
      tokenizer: the vocabulary.

    Example:
      >>> from sibert_jax.data.tokenizer import SPECIAL_PIECES
      >>> pieces = OffsetTokenizer(Tokenizer([*SPECIAL_PIECES, "cafe", "##s"])).encode(["x Cafés"])
      >>> ["x Cafés"[a:b] for a, b in zip(pieces.starts_T, pieces.ends_T)]
      ['x', 'Café', 's']
    """

    def __init__(self, tokenizer: Tokenizer):
        ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
        self._model = word_piece_model(ids, tokenizer.cleaning)
        self._drops_marks = tokenizer.cleaning.strip_accents

    def encode(self, texts: Sequence[str]) -> Pieces:
        """Returns the pieces of all texts."""
        # As in `Tokenizer`: a space always ends a word, so each word is encoded once.
        words_by_text = [text.split(" ") for text in texts]
        words = list(itertools.chain.from_iterable(words_by_text))
        vocabulary = dict.fromkeys(words)
        pool = self._encode_words(list(vocabulary))
        index = dict(zip(vocabulary, itertools.count()))
        word_N = np.fromiter(map(index.__getitem__, words), np.int64, len(words))
        num_pieces_N = pool.lengths[word_N]
        end_N = np.cumsum(num_pieces_N)
        pool_start_N = (np.cumsum(pool.lengths) - pool.lengths)[word_N]
        # Position of every piece in the pool: its word's start plus its place within the word.
        shift_N = pool_start_N - (end_N - num_pieces_N)
        where_T = np.repeat(shift_N, num_pieces_N) + np.arange(num_pieces_N.sum())
        words_per_text = np.array([len(text_words) for text_words in words_by_text], np.int64)
        char_T = np.repeat(_word_starts(words, words_per_text), num_pieces_N)
        last_word = np.cumsum(words_per_text) - 1
        return Pieces(
            pool.ids_T[where_T],
            (pool.starts_T[where_T] + char_T).astype(np.int32),
            (pool.ends_T[where_T] + char_T).astype(np.int32),
            np.diff(end_N[last_word], prepend=0) if len(texts) else np.zeros(0, np.int64),
        )

    def _encode_words(self, words: list[str]) -> Pieces:
        encodings = self._model.encode_batch(words, add_special_tokens=False)
        lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
        places = [encoding.offsets for encoding in encodings]
        if self._drops_marks:
            places = map(_with_trailing_marks, words, places)
        offsets = itertools.chain.from_iterable(places)
        total = int(lengths.sum())
        flat = np.fromiter(itertools.chain.from_iterable(offsets), np.int32, 2 * total)
        return Pieces(np.fromiter(ids, np.int32, total), flat[::2], flat[1::2], lengths)


def _word_starts(words: list[str], words_per_text: np.ndarray) -> np.ndarray:
    """The place of each word's first character in its text, (N,) int64."""
    after_N = np.cumsum(np.fromiter(map(len, words), np.int64, len(words)) + 1)
    first_word = np.cumsum(words_per_text) - words_per_text
    text_start = np.concatenate([[0], after_N])[first_word]
    return np.concatenate([[0], after_N[:-1]]) - np.repeat(text_start, words_per_text)


def _with_trailing_marks(word: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gives the accents behind a letter to its piece; the normaliser dropped them."""
    if word.isascii():
        return offsets
    return [(start, _after_marks(word, end)) for start, end in offsets]


def _after_marks(word: str, end: int) -> int:
    while end < len(word) and unicodedata.category(word[end]) == "Mn":
        end += 1
    return end
