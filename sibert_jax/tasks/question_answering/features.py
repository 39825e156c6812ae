"""Windows of token ids with the place of the answer, made once and kept on disk.

Letters: Q questions, W windows, L length of a sequence. A window is
[CLS] question [SEP] part of the context [SEP].
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import numpy as np

from sibert_jax.data.cache import Cache, Entry, digest
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.errors import DataError
from sibert_jax.tasks.question_answering.dataset import Dataset, read_dataset
from sibert_jax.tasks.question_answering.gold_spans import locate_answers
from sibert_jax.tasks.question_answering.offsets import OffsetTokenizer, Pieces
from sibert_jax.tasks.question_answering.windows import cut_windows

FORMAT_VERSION = 1  # of the arrays below; raise it when their meaning changes
NUM_SPECIAL = 3  # [CLS], [SEP], [SEP]
CHUNK_TEXTS = 2000  # texts tokenised at a time
PROGRESS_SECONDS = 5.0

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class WindowSizes:
    """How windows are cut; in pieces."""

    seq_len: int  # longest window, special pieces included
    max_query_len: int  # a longer question is cut off
    doc_stride: int  # from the start of one window to the next


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The windows of a data set. Context pieces are counted from the start of their context.

    `question_context` and the answers are per question, in the order of `Dataset.questions`; a
    question that was left out has no window.
    """

    context_ids: np.ndarray  # int32, all contexts one after another
    context_starts: np.ndarray  # int32, first character of each piece in its context
    context_ends: np.ndarray  # int32, one behind its last character
    context_offsets: np.ndarray  # (contexts + 1,) int64, where each context begins
    question_ids: np.ndarray  # int32, all questions, cut to max_query_len
    question_offsets: np.ndarray  # (Q + 1,) int64
    question_context: np.ndarray  # (Q,) int32
    answer_first: np.ndarray  # (Q,) int32, first piece of the answer; -1: none, or not known
    answer_last: np.ndarray  # (Q,) int32, its last piece
    window_question: np.ndarray  # (W,) int32
    window_start: np.ndarray  # (W,) int32, first piece of the context
    window_length: np.ndarray  # (W,) int32, pieces of the context
    window_best_start: np.ndarray  # (W,) int32, first piece that has its most context here
    window_best_end: np.ndarray  # (W,) int32, one behind the last

    def __len__(self) -> int:
        return len(self.window_question)

    @property
    def lengths(self) -> np.ndarray:
        """Pieces of each window, special ones included, (W,) int32."""
        question_lengths = np.diff(self.question_offsets)[self.window_question]
        return (question_lengths + self.window_length + NUM_SPECIAL).astype(np.int32)

    def question(self, question: int) -> np.ndarray:
        """Ids of a question."""
        return self.question_ids[slice(*self.question_offsets[question : question + 2])]

    def context_slice(self, question: int) -> slice:
        """Where the pieces of a question's context are in the `context_*` arrays."""
        context = self.question_context[question]
        return slice(*self.context_offsets[context : context + 2])

    def characters(self, window: int, first: int, last: int) -> tuple[int, int]:
        """The characters of the context that pieces first..last of a window stand for.

        Args:
          window: its index.
          first: position in the window's sequence of L pieces, in the context.
          last: likewise.

        Returns:
          Start and end, so that the text is `context[start:end]`.
        """
        question = self.window_question[window]
        context = self.context_slice(question)
        shift = self.window_start[window] - self.context_position(window) + context.start
        return int(self.context_starts[first + shift]), int(self.context_ends[last + shift])

    def context_position(self, window: int) -> int:
        """Position of the first context piece in a window's sequence."""
        question = self.window_question[window]
        return int(self.question_offsets[question + 1] - self.question_offsets[question]) + 2

    def answer_positions(self, window: int) -> tuple[int, int]:
        """Positions of the answer in a window's sequence; (0, 0), the [CLS], if it is not in it."""
        question, start = self.window_question[window], self.window_start[window]
        first, last = self.answer_first[question], self.answer_last[question]
        if first < start or last >= start + self.window_length[window]:
            return 0, 0
        shift = self.context_position(window) - start
        return int(first + shift), int(last + shift)


_ARRAYS = tuple(field.name for field in dataclasses.fields(Features))


def load_features(
    path: pathlib.Path,
    tokenizer: Tokenizer,
    sizes: WindowSizes,
    cache: Cache,
    *,
    for_training: bool,
    strict: bool,
    progress: Progress,
) -> tuple[Features, str]:
    """Cuts the windows of a file, or maps those of an earlier call.

    Args:
      path: a SQuAD file.
      tokenizer: gives the ids.
      sizes: of the windows.
      cache: keeps the arrays; another file, vocabulary or size is another entry.
      for_training: look for the answers; a question whose answer cannot be found is left out, and
        counted: see `gold_spans`.
      strict: raise instead of leaving it out.
      progress: called with a line of text now and then.

    Returns:
      The windows, and a hash of them.

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
    # As plain arrays over the mapped files: numpy's memmap class makes single elements slow.
    mapped = {name: np.load(entry.path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Features(**{name: np.asarray(array) for name, array in mapped.items()})


def build_features(
    dataset: Dataset,
    tokenizer: Tokenizer,
    sizes: WindowSizes,
    *,
    for_training: bool,
    strict: bool,
    progress: Progress,
) -> tuple[Features, list[str]]:
    """Does the work of `load_features`; returns a report of it too, a few lines of text."""
    encoder = OffsetTokenizer(tokenizer)
    contexts = _encode(encoder, dataset.contexts, f"contexts of {dataset.name}", progress)
    texts = [question.text for question in dataset.questions]
    questions = _cut(
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
            locate_answers(dataset, contexts, context_offsets, strict=True)  # says what is wrong
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
    size = f"{kept.sum():,} questions, {len(features):,} windows of up to {sizes.seq_len} pieces"
    return features, [size, *report]


def _check_not_empty(dataset: Dataset, context_lengths: np.ndarray) -> None:
    for question in dataset.questions:
        if not context_lengths[question.context]:
            raise DataError(f"{dataset.name}: the context of question {question.id!r} has no word")


def _encode(encoder: OffsetTokenizer, texts, name: str, progress: Progress) -> Pieces:
    parts, said = [], time.monotonic()
    for start in range(0, len(texts), CHUNK_TEXTS):
        parts.append(encoder.encode(texts[start : start + CHUNK_TEXTS]))
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            done = min(start + CHUNK_TEXTS, len(texts))
            progress(f"tokenising {name}: {done:,} of {len(texts):,}")
    return Pieces(*map(np.concatenate, zip(*parts)))


def _cut(pieces: Pieces, max_len: int) -> Pieces:
    """Keeps the first `max_len` pieces of each text."""
    begin = np.repeat(np.cumsum(pieces.lengths) - pieces.lengths, pieces.lengths)
    keep_T = np.arange(len(pieces.ids_T)) - begin < max_len
    flat = (array[keep_T] for array in pieces[:3])
    return Pieces(*flat, np.minimum(pieces.lengths, max_len))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
