"""Windows of token ids with answer positions, built once and cached on disk.

A window is [CLS] question [SEP] part of the context [SEP]. Notation: Q questions, W windows, B
batch, L length of a sequence.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import numpy as np

from sibert_jax.data.cache import Cache, Entry, digest
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError
from sibert_jax.tasks.question_answering.dataset import Dataset, read_dataset
from sibert_jax.tasks.question_answering.windows import (
    OffsetTokenizer,
    Tokens,
    cut_windows,
    locate_answers,
)

FORMAT_VERSION = 1  # version of the arrays below; increase it when their meaning changes
NUM_SPECIAL = 3  # [CLS], [SEP], [SEP]
CHUNK_TEXTS = 2000  # texts tokenized per call
PROGRESS_SECONDS = 5.0

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class WindowSizes:
    """Sizes of the windows, in tokens."""

    seq_len: int  # maximum length of a window, including special tokens
    max_query_len: int  # a longer question is truncated
    doc_stride: int  # from the start of one window to the next


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The windows of a dataset. Context tokens are counted from the start of their context.

    `question_context` and the answers are per question, in the order of `Dataset.questions`; a
    skipped question has no window.
    """

    context_ids: np.ndarray  # int32, all contexts concatenated
    context_starts: np.ndarray  # int32, first character of each token in its context
    context_ends: np.ndarray  # int32, one past its last character
    context_offsets: np.ndarray  # (contexts + 1,) int64, where each context begins
    question_ids: np.ndarray  # int32, all questions, truncated to max_query_len
    question_offsets: np.ndarray  # (Q + 1,) int64
    question_context: np.ndarray  # (Q,) int32
    answer_first: np.ndarray  # (Q,) int32, first token of the answer; -1: none, or unknown
    answer_last: np.ndarray  # (Q,) int32, its last token
    window_question: np.ndarray  # (W,) int32
    window_start: np.ndarray  # (W,) int32, first token of the context
    window_length: np.ndarray  # (W,) int32, tokens of the context
    window_best_start: np.ndarray  # (W,) int32, first token with its maximum context here
    window_best_end: np.ndarray  # (W,) int32, one past the last

    def __len__(self) -> int:
        return len(self.window_question)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each window, including special ones, (W,) int32."""
        question_lengths = np.diff(self.question_offsets)[self.window_question]
        return (question_lengths + self.window_length + NUM_SPECIAL).astype(np.int32)

    def question(self, question: int) -> np.ndarray:
        """Returns the token ids of a question."""
        return self.question_ids[slice(*self.question_offsets[question : question + 2])]

    def context_slice(self, question: int) -> slice:
        """Returns the slice of the `context_*` arrays with a question's context."""
        context = self.question_context[question]
        return slice(*self.context_offsets[context : context + 2])

    def characters(self, window: int, first: int, last: int) -> tuple[int, int]:
        """Returns the range of context characters under tokens first..last of a window.

        Args:
          window: index of the window.
          first: position of a context token in the window's sequence of L tokens.
          last: likewise.

        Returns:
          Start and end, so that the text is `context[start:end]`.
        """
        question = self.window_question[window]
        context = self.context_slice(question)
        shift = self.window_start[window] - self.context_position(window) + context.start
        return int(self.context_starts[first + shift]), int(self.context_ends[last + shift])

    def context_position(self, window: int) -> int:
        """Returns the position of the first context token in a window's sequence."""
        question = self.window_question[window]
        return int(self.question_offsets[question + 1] - self.question_offsets[question]) + 2

    def answer_positions(self, window: int) -> tuple[int, int]:
        """Returns the answer's positions in a window's sequence; (0, 0), the [CLS], if absent."""
        question, start = self.window_question[window], self.window_start[window]
        first, last = self.answer_first[question], self.answer_last[question]
        if first < start or last >= start + self.window_length[window]:
            return 0, 0
        shift = self.context_position(window) - start
        return int(first + shift), int(last + shift)


_ARRAYS = tuple(field.name for field in dataclasses.fields(Features))


def load_features(
    path: pathlib.Path,
    tokenizer: WordPiece,
    sizes: WindowSizes,
    cache: Cache,
    *,
    for_training: bool,
    strict: bool,
    progress: Progress,
) -> tuple[Features, str]:
    """Builds the windows of a file, or memory-maps those of an earlier call.

    Args:
      path: a SQuAD file.
      tokenizer: the tokenizer.
      sizes: the sizes of the windows.
      cache: stores the arrays, keyed by the file, the vocabulary and the sizes.
      for_training: whether to locate the answers; a question whose answer cannot be found is
        skipped and counted, see `windows.locate_answers`.
      strict: whether to raise instead of skipping it.
      progress: called with progress messages.

    Returns:
      The windows and their hash.

    Raises:
      DataError: the file cannot be used.
    """
    key = digest(
        "squad",
        FORMAT_VERSION,
        cache.source_sha256(path),
        tokenizer.hash,
        dataclasses.asdict(sizes),
        for_training,
        strict,
    )

    def build(directory: pathlib.Path) -> dict:
        dataset = read_dataset(path, unique_ids=not for_training)
        features, report = build_features(
            dataset, tokenizer, sizes, for_training=for_training, strict=strict, progress=progress
        )
        for name in _ARRAYS:
            np.save(directory / f"{name}.npy", getattr(features, name))
        return {"source": str(path), "report": [*dataset.report, *report]}

    entry = cache.load_or_build(f"squad-{key}", build)
    for line in entry.manifest["report"]:
        progress(f"{path.name}: {line}")
    return _open(entry), digest(entry.manifest["files"])


def _open(entry: Entry) -> Features:
    # Use plain arrays over the mapped files: element access is slow in numpy's memmap class.
    mapped = {name: np.load(entry.path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Features(**{name: np.asarray(array) for name, array in mapped.items()})


def build_features(
    dataset: Dataset,
    tokenizer: WordPiece,
    sizes: WindowSizes,
    *,
    for_training: bool,
    strict: bool,
    progress: Progress,
) -> tuple[Features, list[str]]:
    """Builds windows without a file or a cache; returns them and a report of a few lines."""
    encoder = OffsetTokenizer(tokenizer)
    contexts = _encode(encoder, dataset.contexts, f"contexts of {dataset.name}", progress)
    texts = [question.text for question in dataset.questions]
    questions = _truncate(
        _encode(encoder, texts, f"questions of {dataset.name}", progress), sizes.max_query_len
    )
    context_offsets = _offsets(contexts.lengths)
    context_of_Q = np.array([question.context for question in dataset.questions], np.int32)
    count = len(dataset.questions)
    answers = np.full((count, 2), -1, np.int32)
    kept, report = np.ones(count, bool), []
    if for_training:
        answers, kept, report = locate_answers(dataset, contexts, context_offsets, strict)
        if not kept.any():
            locate_answers(dataset, contexts, context_offsets, strict=True)  # raises
    else:
        _check_not_empty(dataset, contexts.lengths)
    windows = []
    for i in np.flatnonzero(kept):
        room = sizes.seq_len - NUM_SPECIAL - int(questions.lengths[i])
        cut = cut_windows(int(contexts.lengths[context_of_Q[i]]), room, sizes.doc_stride)
        windows.append((np.full(len(cut.start), i, np.int32), *cut))
    question_W, start_W, length_W, best_start_W, best_end_W = map(np.concatenate, zip(*windows))
    features = Features(
        context_ids=contexts.ids_T,
        context_starts=contexts.starts_T,
        context_ends=contexts.ends_T,
        context_offsets=context_offsets,
        question_ids=questions.ids_T,
        question_offsets=_offsets(questions.lengths),
        question_context=context_of_Q,
        answer_first=answers[:, 0],
        answer_last=answers[:, 1],
        window_question=question_W,
        window_start=start_W,
        window_length=length_W,
        window_best_start=best_start_W,
        window_best_end=best_end_W,
    )
    size = f"{kept.sum():,} questions, {len(features):,} windows of up to {sizes.seq_len} tokens"
    return features, [size, *report]


def _check_not_empty(dataset: Dataset, context_lengths: np.ndarray) -> None:
    for question in dataset.questions:
        if question.text and not context_lengths[question.context]:  # otherwise a blank line
            raise DataError(f"{dataset.name}: the context of question {question.id!r} has no word")


def _encode(encoder: OffsetTokenizer, texts, name: str, progress: Progress) -> Tokens:
    parts, reported = [], time.monotonic()
    for start in range(0, len(texts), CHUNK_TEXTS):
        parts.append(encoder.encode(texts[start : start + CHUNK_TEXTS]))
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            done = min(start + CHUNK_TEXTS, len(texts))
            progress(f"tokenizing {name}: {done:,} of {len(texts):,}")
    return Tokens(*map(np.concatenate, zip(*parts)))


def _truncate(tokens: Tokens, max_len: int) -> Tokens:
    """Keeps the first `max_len` tokens of each text."""
    begin = np.repeat(np.cumsum(tokens.lengths) - tokens.lengths, tokens.lengths)
    keep_T = np.arange(len(tokens.ids_T)) - begin < max_len
    flat = (array[keep_T] for array in tokens[:3])
    return Tokens(*flat, np.minimum(tokens.lengths, max_len))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def with_answers(features: Features, dataset: Dataset) -> tuple[Features, np.ndarray]:
    """Adds the answers to windows built without them, for the loss of an evaluation.

    No window is skipped: predictions do not need the position of the answer.

    Args:
      features: the windows.
      dataset: the dataset of the windows.

    Returns:
      The windows with the first answer of each question, and a mask of those with a known target,
      (W,) bool: False where the answer is misplaced, and everywhere if the file has no answers.
    """
    contexts = Tokens(
        features.context_ids,
        features.context_starts,
        features.context_ends,
        np.diff(features.context_offsets),
    )
    answers, found_Q, _ = locate_answers(dataset, contexts, features.context_offsets, strict=False)
    known_Q = found_Q & any(question.answers for question in dataset.questions)
    first_Q, last_Q = answers.T
    features = dataclasses.replace(features, answer_first=first_Q, answer_last=last_Q)
    return features, known_Q[features.window_question]


class WindowRows:
    """The windows of a dataset as rows of a batch: see `data.BucketedBatches`.

    Args:
      features: the windows.
      tokenizer: the tokenizer they were built with.
      fingerprint: changes whenever a window changes.
    """

    def __init__(self, features: Features, tokenizer: WordPiece, fingerprint: str):
        self.features, self.fingerprint = features, fingerprint
        self.lengths = features.lengths
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """Returns the given windows padded to `seq_len`.

        Returns:
          tokens (B,L) int32; segments (B,L) int32, 1 from the context on; attention_mask (B,L)
          bool, False on padding; may_end (B,L) bool, True on the context; may_start (B,L) bool,
          True on context tokens with their maximum context in this window; answer_first,
          answer_last (B,) int32, positions of the answer, 0 if it is absent.
        """
        shape = (len(indices_B), seq_len)
        batch = {
            "tokens": np.full(shape, self._tokenizer.pad_id, np.int32),
            "segments": np.zeros(shape, np.int32),
            "attention_mask": np.zeros(shape, bool),
            "may_start": np.zeros(shape, bool),
            "may_end": np.zeros(shape, bool),
            "answer_first": np.zeros(len(indices_B), np.int32),
            "answer_last": np.zeros(len(indices_B), np.int32),
        }
        for i, window in enumerate(indices_B):
            self._fill_row(batch, i, window)
        return batch

    def _fill_row(self, batch: dict[str, np.ndarray], i: int, window: int) -> None:
        f, tokenizer = self.features, self._tokenizer
        question, start = f.window_question[window], f.window_start[window]
        begin, length = f.context_position(window), int(f.window_length[window])
        end = begin + length
        first_token = f.context_slice(question).start + start
        tokens_L = batch["tokens"][i]
        tokens_L[0] = tokenizer.cls_id
        tokens_L[1 : begin - 1] = f.question(question)
        tokens_L[begin - 1] = tokenizer.sep_id
        tokens_L[begin:end] = f.context_ids[first_token : first_token + length]
        tokens_L[end] = tokenizer.sep_id
        batch["segments"][i, begin : end + 1] = 1
        batch["attention_mask"][i, : end + 1] = True
        batch["may_end"][i, begin:end] = True
        best_start, best_end = f.window_best_start[window], f.window_best_end[window]
        batch["may_start"][i, begin + best_start - start : begin + best_end - start] = True
        batch["answer_first"][i], batch["answer_last"][i] = f.answer_positions(window)
