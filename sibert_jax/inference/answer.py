"""The answer to one question about one context."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sibert_jax.data import BucketedBatches, WordPiece
from sibert_jax.inference.sizes import power_of_two, seq_lens
from sibert_jax.tasks.question_answering.dataset import Dataset, Question
from sibert_jax.tasks.question_answering.features import WindowRows, WindowSizes, build_features
from sibert_jax.tasks.question_answering.predictions import Answerer
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig

MOST_WINDOWS = 32  # at a time


class Answer(NamedTuple):
    """A part of a context: `context[start:end] == text`."""

    text: str  # "": there is no answer, which models of SQuAD 2.0 may say
    score: float  # probability among the `task.n_best` likeliest, in [0, 1]
    start: int  # characters before it in the context
    end: int  # characters up to its end


def answer(
    question: str,
    context: str,
    *,
    tokenizer: WordPiece,
    task: QuestionAnsweringConfig,
    max_tokens: int,
    read: Callable[[dict], dict],
) -> Answer:
    """Reads all windows of a context and combines what is found.

    Args:
      question: not empty.
      context: likewise.
      tokenizer: of the model.
      task: windows and answers.
      max_tokens: of a window.
      read: `QuestionAnswering.eval_batch` with the parameters of the model.
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
