"""Where the gold answers are: first and last word piece, and what does not fit. Q questions."""

import numpy as np

from sibert_jax.data.errors import DataError
from sibert_jax.tasks.question_answering.dataset import Dataset, Question
from sibert_jax.tasks.question_answering.offsets import Pieces
from sibert_jax.tasks.question_answering.scoring import normalise_answer
from sibert_jax.tasks.question_answering.windows import pieces_of_span


def locate_answers(
    dataset: Dataset, contexts: Pieces, context_offsets: np.ndarray, strict: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds the pieces of each question's first answer.

    Args:
      dataset: questions, contexts and answers.
      contexts: the pieces of the contexts.
      context_offsets: (contexts + 1,) int64, where the pieces of each context begin.
      strict: raise for an answer that is not in its context at the place that the file says.

    Returns:
      First and last piece, (Q, 2) int32, -1 where there is no answer; which questions stay, (Q,)
      bool: not those whose answer is misplaced; a report, a line a kind of exception.

    Raises:
      DataError: an answer is misplaced and `strict`.
    """
    answers = np.full((len(dataset.questions), 2), -1, np.int32)
    kept = np.ones(len(dataset.questions), bool)
    misplaced, inexact, num_answers = [], [], 0
    for i, question in enumerate(dataset.questions):
        if not question.answers:
            continue
        num_answers += 1
        answer = question.answers[0]
        text = dataset.contexts[question.context]
        pieces = slice(*context_offsets[question.context : question.context + 2])
        starts_T, ends_T = contexts.starts_T[pieces], contexts.ends_T[pieces]
        end = answer.start + len(answer.text)
        span = None
        if answer.start >= 0 and text[answer.start : end] == answer.text:
            span = pieces_of_span(starts_T, ends_T, answer.start, end)
        if span is None:
            if strict:
                raise DataError(misplaced_sentence(dataset, question))
            misplaced.append(question)
            kept[i] = False
            continue
        answers[i] = span
        found = text[starts_T[span[0]] : ends_T[span[1]]]
        if normalise_answer(found) != normalise_answer(answer.text):
            inexact.append(f"{question.id!r}: {answer.text!r} in {found!r}")
    report = [
        f"{len(inexact):,} of {num_answers:,} answers ({len(inexact) / max(num_answers, 1):.2%}) "
        "are not whole pieces" + "".join(f"; {example}" for example in inexact[:3])
    ]
    if misplaced:
        ids = ", ".join(repr(question.id) for question in misplaced[:3])
        report.append(
            f"{len(misplaced):,} of {num_answers:,} questions left out, as their answer is not in "
            f"their context at answer_start, such as {ids}"
        )
    return answers, kept, report


def misplaced_sentence(dataset: Dataset, question: Question) -> str:
    """Says what stands in the context where a question's answer should."""
    answer, context = question.answers[0], dataset.contexts[question.context]
    found = context[max(answer.start, 0) : answer.start + len(answer.text)]
    return (
        f"{dataset.name}: question {question.id!r} has the answer {answer.text!r}, but its "
        f"context has {found!r} at answer_start={answer.start}"
    )
