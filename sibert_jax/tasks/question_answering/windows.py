"""Splits contexts into tokens and windows: character offsets, overlaps, answer tokens.

Notation: T tokens of all texts, Q questions, W windows.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sibert_jax.data.tokenizers.word_piece import WordPiece, word_piece_model
from sibert_jax.errors import DataError
from sibert_jax.tasks.question_answering.dataset import Dataset, Question, normalize_answer


class Tokens(NamedTuple):
    """WordPiece tokens of several texts, concatenated, with their character offsets."""

    ids_T: np.ndarray  # int32, those of `WordPiece.encode_batch`
    starts_T: np.ndarray  # int32, first character of the token in its text
    ends_T: np.ndarray  # int32, one past its last character
    lengths: np.ndarray  # (texts,) int64, tokens of each text


class OffsetTokenizer:
    """Encodes texts as `WordPiece` does, with the character offsets of each token.

    `text[start:end]` is the original text of the token, including accents that were stripped,
    capitals, and dropped control characters inside it. Tokens of a single letter that Unicode
    decomposes (Hangul) share its offsets; a combining mark belongs to the preceding letter.

    Args:
      tokenizer: the vocabulary.

    Example:
      >>> from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES
      >>> tokens = OffsetTokenizer(WordPiece([*SPECIAL_PIECES, "cafe", "##s"])).encode(["x Cafés"])
      >>> ["x Cafés"[a:b] for a, b in zip(tokens.starts_T, tokens.ends_T)]
      ['x', 'Café', 's']
    """

    def __init__(self, tokenizer: WordPiece):
        ids = {token: i for i, token in enumerate(tokenizer.pieces)}
        self._model = word_piece_model(ids, tokenizer.cleaning)
        self._drops_marks = tokenizer.cleaning.strip_accents

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Returns the tokens of all texts."""
        # As in `WordPiece`: a space always ends a word, so each distinct word is encoded once.
        words_by_text = [text.split(" ") for text in texts]
        words = list(itertools.chain.from_iterable(words_by_text))
        vocabulary = dict.fromkeys(words)
        pool = self._encode_words(list(vocabulary))
        index = dict(zip(vocabulary, itertools.count()))
        word_N = np.fromiter(map(index.__getitem__, words), np.int64, len(words))
        num_tokens_N = pool.lengths[word_N]
        end_N = np.cumsum(num_tokens_N)
        pool_start_N = (np.cumsum(pool.lengths) - pool.lengths)[word_N]
        # Index of every token in the pool: its word's start plus its index within the word.
        shift_N = pool_start_N - (end_N - num_tokens_N)
        where_T = np.repeat(shift_N, num_tokens_N) + np.arange(num_tokens_N.sum())
        words_per_text = np.array([len(text_words) for text_words in words_by_text], np.int64)
        char_T = np.repeat(_word_starts(words, words_per_text), num_tokens_N)
        last_word = np.cumsum(words_per_text) - 1
        return Tokens(
            pool.ids_T[where_T],
            (pool.starts_T[where_T] + char_T).astype(np.int32),
            (pool.ends_T[where_T] + char_T).astype(np.int32),
            np.diff(end_N[last_word], prepend=0) if len(texts) else np.zeros(0, np.int64),
        )

    def _encode_words(self, words: list[str]) -> Tokens:
        encodings = self._model.encode_batch(words, add_special_tokens=False)
        lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
        by_word = [encoding.offsets for encoding in encodings]
        if self._drops_marks:
            by_word = map(_with_trailing_marks, words, by_word)
        offsets = itertools.chain.from_iterable(by_word)
        total = int(lengths.sum())
        flat = np.fromiter(itertools.chain.from_iterable(offsets), np.int32, 2 * total)
        return Tokens(np.fromiter(ids, np.int32, total), flat[::2], flat[1::2], lengths)


def _word_starts(words: list[str], words_per_text: np.ndarray) -> np.ndarray:
    """Returns the offset of each word's first character in its text, (N,) int64."""
    after_N = np.cumsum(np.fromiter(map(len, words), np.int64, len(words)) + 1)
    first_word = np.cumsum(words_per_text) - words_per_text
    text_start = np.concatenate([[0], after_N])[first_word]
    return np.concatenate([[0], after_N[:-1]]) - np.repeat(text_start, words_per_text)


def _with_trailing_marks(word: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Adds the combining marks after a letter, dropped by the normalizer, to its token."""
    if word.isascii():
        return offsets
    return [(start, _after_marks(word, end)) for start, end in offsets]


def _after_marks(word: str, end: int) -> int:
    while end < len(word) and unicodedata.category(word[end]) == "Mn":
        end += 1
    return end


class Windows(NamedTuple):
    """Windows of one context, in tokens of the context; arrays of (windows,) int32."""

    start: np.ndarray  # first token
    length: np.ndarray  # tokens
    best_start: np.ndarray  # first token with its maximum context in this window
    best_end: np.ndarray  # one past the last such token


def cut_windows(num_tokens: int, room: int, stride: int) -> Windows:
    """Cuts a context into overlapping windows.

    Args:
      num_tokens: tokens of the context, >= 1.
      room: tokens that fit into a window, >= 1.
      stride: tokens from the start of one window to the next, >= 1; capped at `room`, so that no
        token is left out.

    Returns:
      The windows, each with the range of tokens for which it is the best: the one where the smaller
      number of tokens to the left or right is largest; ties go to the longer, then to the earlier
      window. The ranges are disjoint and cover the context.

    Example:
      >>> windows = cut_windows(10, room=6, stride=4)
      >>> [array.tolist() for array in windows]  # starts, lengths, ranges
      [[0, 4], [6, 6], [0, 5], [5, 10]]

    References:
      Devlin et al., BERT, https://arxiv.org/abs/1810.04805, the code's `_check_is_max_context`.
    """
    starts = [0]
    while starts[-1] + room < num_tokens:
        starts.append(starts[-1] + min(room, stride))
    start_W = np.array(starts, np.int32)
    length_W = np.minimum(num_tokens - start_W, room).astype(np.int32)
    if len(starts) == 1:
        return Windows(start_W, length_W, start_W, length_W)
    left_WT = np.arange(num_tokens)[None, :] - start_W[:, None]
    right_WT = length_W[:, None] - 1 - left_WT
    margin_WT = np.minimum(left_WT, right_WT)
    score_WT = np.where(margin_WT >= 0, margin_WT + 0.01 * length_W[:, None], -1.0)
    best_T = np.argmax(score_WT, axis=0)
    # The margins are tent functions side by side, so each window is the best on one range.
    best_start = np.searchsorted(best_T, np.arange(len(starts)), side="left")
    best_end = np.searchsorted(best_T, np.arange(len(starts)), side="right")
    return Windows(start_W, length_W, best_start.astype(np.int32), best_end.astype(np.int32))


def tokens_of_span(
    starts_T: np.ndarray, ends_T: np.ndarray, start: int, end: int
) -> tuple[int, int] | None:
    """Returns the first and last token that overlap text[start:end]; None if there are none.

    Example:
      >>> starts, ends = np.array([0, 4, 7]), np.array([3, 7, 9])
      >>> tokens_of_span(starts, ends, 5, 8)
      (1, 2)
    """
    first = int(np.searchsorted(ends_T, start, side="right"))
    last = int(np.searchsorted(starts_T, end, side="left")) - 1
    return (first, last) if first <= last else None


# Reasons to skip a question.
EMPTY = "their answer is empty"
MISPLACED = "their answer is not in the context at answer_start"
NO_WORD = "their context has no word"
NO_TOKEN = "their answer has no token"


def locate_answers(
    dataset: Dataset, contexts: Tokens, context_offsets: np.ndarray, strict: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds the tokens of each question's first answer.

    Args:
      dataset: questions, contexts and answers.
      contexts: the tokens of the contexts.
      context_offsets: (contexts + 1,) int64, where the tokens of each context begin.
      strict: whether to raise for an answer that cannot be found.

    Returns:
      First and last token, (Q, 2) int32, -1 if there is no answer; the questions to keep, (Q,)
      bool; a report, one line per reason to skip. A question is not kept if its answer is not in
      the context at `answer_start`, is empty or has no token, or if its context has none.

    Raises:
      DataError: an answer cannot be found, and `strict`.
    """
    answers = np.full((len(dataset.questions), 2), -1, np.int32)
    kept = np.ones(len(dataset.questions), bool)
    left_out, inexact = {}, []
    for i, question in enumerate(dataset.questions):
        text = dataset.contexts[question.context]
        tokens = slice(*context_offsets[question.context : question.context + 2])
        starts_T, ends_T = contexts.starts_T[tokens], contexts.ends_T[tokens]
        answer = question.answers[0] if question.answers else None
        end = answer.start + len(answer.text) if answer else 0
        span = reason = None
        if not len(starts_T):
            reason = NO_WORD
        elif answer is None:
            continue
        elif not answer.text:
            reason = EMPTY
        elif answer.start < 0 or text[answer.start : end] != answer.text:
            reason = MISPLACED
        elif (span := tokens_of_span(starts_T, ends_T, answer.start, end)) is None:
            reason = NO_TOKEN
        if reason:
            if strict:
                raise DataError(_sentence(dataset, question, reason))
            left_out.setdefault(reason, []).append(question)
            kept[i] = False
            continue
        answers[i] = span
        found = text[starts_T[span[0]] : ends_T[span[1]]]
        if normalize_answer(found) != normalize_answer(answer.text):
            inexact.append(f"{question.id!r}: {answer.text!r} in {found!r}")
    num_answers = sum(bool(question.answers) for question in dataset.questions)
    report = [
        f"{len(inexact):,} of {num_answers:,} answers ({len(inexact) / max(num_answers, 1):.2%}) "
        "begin or end inside a token" + "".join(f"; {example}" for example in inexact[:3])
    ]
    for reason, questions in left_out.items():
        ids = ", ".join(repr(question.id) for question in questions[:3])
        report.append(
            f"{len(questions):,} of {len(kept):,} questions skipped because {reason}: {ids}"
            + ", …" * (len(questions) > 3)
        )
    return answers, kept, report


def _sentence(dataset: Dataset, question: Question, reason: str) -> str:
    if reason == NO_WORD:
        return f"{dataset.name}: the context of question {question.id!r} has no word"
    answer, context = question.answers[0], dataset.contexts[question.context]
    where = f"{dataset.name}: question {question.id!r} has"
    if reason == EMPTY:
        return f'{where} an empty answer; write "answers": [] if it has none'
    if reason == NO_TOKEN:
        return (
            f"{where} the answer {answer.text!r} at answer_start={answer.start}, which has no "
            "token: whitespace, control characters and U+FFFD have none"
        )
    found = context[max(answer.start, 0) : max(answer.start + len(answer.text), 0)]
    return (
        f"{where} the answer {answer.text!r}, but its context has {found!r} at "
        f"answer_start={answer.start}"
    )
