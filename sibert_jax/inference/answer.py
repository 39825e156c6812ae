"""Answers one question about one context."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sibert_jax.data import BucketedBatches, WordPiece
from sibert_jax.inference.sizes import power_of_two, seq_lens
from sibert_jax.tasks.question_answering.dataset import Dataset, Question
from sibert_jax.tasks.question_answering.features import WindowRows, WindowSizes, build_features
from sibert_jax.tasks.question_answering.predictions import Answerer
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig

MOST_WINDOWS = 32  # per batch


class Answer(NamedTuple):
    """An answer: a span of the context, `context[start:end] == text`."""

    text: str  # "" if there is no answer (SQuAD 2.0 models)
    score: float  # probability among the `task.n_best` most likely answers, in [0, 1]
    start: int  # index of its first character in the context
    end: int  # index after its last character


def answer(
    question: str,
    context: str,
    *,
    tokenizer: WordPiece,
    task: QuestionAnsweringConfig,
    max_tokens: int,
    read: Callable[[dict], dict],
) -> Answer:
    """Runs the model on all windows of a context and returns the best answer.

    Args:
      question: the question, not empty.
      context: the text to find the answer in, not empty.
      tokenizer: the model's tokenizer.
      task: the task's config: window stride, answer length and so on.
      max_tokens: the length of a window in tokens.
      read: `QuestionAnswering.eval_batch` with the model's parameters bound.
    """
    dataset = Dataset("the question", (context,), (Question("1", question, 0, ()),), True)
    sizes = WindowSizes(max_tokens, task.max_query_len, task.doc_stride)
    features, _ = build_features(
        dataset, tokenizer, sizes, for_training=False, strict=False, progress=lambda _: None
    )
    answerer = Answerer(
        dataset,
        features,
        n_best=task.n_best,
        unanswerable=task.unanswerable,
        null_threshold=task.null_threshold,
    )
    windows = WindowRows(features, tokenizer, "")
    size = min(MOST_WINDOWS, power_of_two(len(windows)))
    batches = BucketedBatches(
        windows, seq_lens(max_tokens), global_batch_size=size, seed=0, shuffle=False
    )
    results = [jax.device_get(read(batches.batch(i))) for i in range(len(batches))]
    (prediction,) = answerer.answers(results).values()
    text, entries = answerer.text(prediction), answerer.n_best_of(prediction)
    score = next((entry["probability"] for entry in entries if entry["text"] == text), 0.0)
    start = next((found.start for found in prediction.candidates if found.text == text), 0)
    return Answer(text, score, start, start + len(text))
