"""Where the answers of held-out questions are, for the loss. Q questions, W windows."""

import dataclasses

import numpy as np

from sibert_jax.tasks.question_answering.dataset import Dataset
from sibert_jax.tasks.question_answering.features import Features
from sibert_jax.tasks.question_answering.gold_spans import locate_answers
from sibert_jax.tasks.question_answering.offsets import Pieces


def with_answers(features: Features, dataset: Dataset) -> tuple[Features, np.ndarray]:
    """Adds the answers to windows that were cut without looking for them.

    No window is left out, as predictions need no place of an answer.

    Args:
      features: the windows.
      dataset: what they were cut from.

    Returns:
      The windows with the first answer of each question; which of them have a known target, (W,)
      bool: not those of a question whose answer is misplaced, and none where the file has no
      answers at all.
    """
    contexts = Pieces(
        features.context_ids,
        features.context_starts,
        features.context_ends,
        np.diff(features.context_offsets),
    )
    answers, placed_Q, _ = locate_answers(dataset, contexts, features.context_offsets, strict=False)
    known_Q = placed_Q & any(question.answers for question in dataset.questions)
    first_Q, last_Q = answers.T
    labelled = dataclasses.replace(features, answer_first=first_Q, answer_last=last_Q)
    return labelled, known_Q[features.window_question]
