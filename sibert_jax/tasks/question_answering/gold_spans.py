"""Where the gold answers are: first and last word piece, and what does not fit. Q questions."""

import numpy as np

from sibert_jax.errors import DataError
from sibert_jax.tasks.question_answering.dataset import Dataset, Question
from sibert_jax.tasks.question_answering.offsets import Pieces
from sibert_jax.tasks.question_answering.scoring import normalise_answer
from sibert_jax.tasks.question_answering.windows import pieces_of_span

# Why a question is left out.
EMPTY = "their answer is the empty text"
MISPLACED = "their answer is not in their context at answer_start"
NO_WORD = "their context has no word"
NO_PIECE = "no word piece stands for their answer"


def locate_answers(
    dataset: Dataset, contexts: Pieces, context_offsets: np.ndarray, strict: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds the pieces of each question's first answer.

    Args:
      dataset: questions, contexts and answers.
      contexts: the pieces of the contexts.
      context_offsets: (contexts + 1,) int64, where the pieces of each context begin.
      strict: raise for an answer that cannot be found.

    Returns:
      First and last piece, (Q, 2) int32, -1 where there is no answer; which questions stay, (Q,)
      bool: not those whose answer is not in its context at the place that the file says, is empty
      or has no word piece, or whose context has none; a report, a line a kind of exception.

    Raises:
      DataError: such an answer and `strict`.
    """
    answers = np.full((len(dataset.questions), 2), -1, np.int32)
    kept = np.ones(len(dataset.questions), bool)
    left_out, inexact = {}, []
    for i, question in enumerate(dataset.questions):
        text = dataset.contexts[question.context]
        pieces = slice(*context_offsets[question.context : question.context + 2])
        starts_T, ends_T = contexts.starts_T[pieces], contexts.ends_T[pieces]
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
        elif (span := pieces_of_span(starts_T, ends_T, answer.start, end)) is None:
            reason = NO_PIECE
        if reason:
            if strict:
                raise DataError(_sentence(dataset, question, reason))
            left_out.setdefault(reason, []).append(question)
            kept[i] = False
            continue
        answers[i] = span
        found = text[starts_T[span[0]] : ends_T[span[1]]]
        if normalise_answer(found) != normalise_answer(answer.text):
            inexact.append(f"{question.id!r}: {answer.text!r} in {found!r}")
    num_answers = sum(bool(question.answers) for question in dataset.questions)
    report = [
        f"{len(inexact):,} of {num_answers:,} answers ({len(inexact) / max(num_answers, 1):.2%}) "
        "are not whole pieces" + "".join(f"; {example}" for example in inexact[:3])
    ]
    for reason, questions in left_out.items():
        ids = ", ".join(repr(question.id) for question in questions[:3])
        report.append(
            f"{len(questions):,} of {len(kept):,} questions left out, as {reason}, such as {ids}"
        )
    return answers, kept, report


def _sentence(dataset: Dataset, question: Question, reason: str) -> str:
    if reason == NO_WORD:
        return f"{dataset.name}: the context of question {question.id!r} has no word"
    answer, context = question.answers[0], dataset.contexts[question.context]
    where = f"{dataset.name}: question {question.id!r} has"
    if reason == EMPTY:
        return f'{where} the empty text as its answer; write "answers": [] if it has none'
    if reason == NO_PIECE:
        return (
            f"{where} the answer {answer.text!r} at answer_start={answer.start}, and no word piece "
            "stands for it: white space, control characters and U+FFFD have none"
        )
    found = context[max(answer.start, 0) : max(answer.start + len(answer.text), 0)]
    return (
        f"{where} the answer {answer.text!r}, but its context has {found!r} at "
        f"answer_start={answer.start}"
    )
