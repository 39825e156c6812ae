"""Predicted answers: the best spans of a window, the answer to a question, the output files.

Notation: B batch, L length, A maximum answer length in tokens, C candidates.
"""

import dataclasses
import json
import math
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.files import atomically
from sibert_jax.tasks.question_answering.dataset import Dataset, evaluate
from sibert_jax.tasks.question_answering.features import Features

PREDICTIONS, N_BEST, NULL_ODDS = "predictions.json", "nbest_predictions.json", "null_odds.json"


class Spans(NamedTuple):
    """Spans of tokens, best first; a score of -inf means that there are no more."""

    score_BC: jax.Array  # float32, start logit + end logit
    first_BC: jax.Array  # int32, position of the first token
    last_BC: jax.Array  # int32, position of the last token


def best_spans(
    start_BL: jax.Array,
    end_BL: jax.Array,
    may_start_BL: jax.Array,
    may_end_BL: jax.Array,
    *,
    max_len: int,
    count: int,
) -> Spans:
    """Returns the highest-scoring spans of at most `max_len` tokens.

    Args:
      start_BL: float32, logits that the answer starts here.
      end_BL: float32, logits that the answer ends here.
      may_start_BL: bool, positions where a span may start.
      may_end_BL: bool, positions where it may end.
      max_len: A >= 1, maximum answer length in tokens.
      count: C >= 1, number of spans.
    """
    num_rows, seq_len = start_BL.shape
    starts_BL = jnp.where(may_start_BL, start_BL, -jnp.inf)
    ends_BL = jnp.where(may_end_BL, end_BL, -jnp.inf)
    ends_BM = jnp.pad(ends_BL, ((0, 0), (0, max_len - 1)), constant_values=-jnp.inf)
    ends_BLA = jnp.stack([ends_BM[:, a : a + seq_len] for a in range(max_len)], axis=-1)
    score_BS = (starts_BL[:, :, None] + ends_BLA).reshape(num_rows, seq_len * max_len)
    score_BC, index_BC = jax.lax.top_k(score_BS, min(count, seq_len * max_len))
    first_BC = index_BC // max_len
    return Spans(score_BC, first_BC, first_BC + index_BC % max_len)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A possible answer: a substring of the context, or "" for no answer."""

    text: str
    start: int  # its first character in the context
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """The ranking score: start logit + end logit."""
        return self.start_logit + self.end_logit


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Candidate answers of one question and the score of no answer."""

    candidates: tuple[Candidate, ...]  # best first, distinct texts, none empty
    null_score: float  # score of no answer: the minimum over the windows

    @property
    def best(self) -> str:
        """The best text, ignoring the score of no answer; "" if no span is possible."""
        return self.candidates[0].text if self.candidates else ""

    @property
    def null_odds(self) -> float:
        """Score of no answer minus that of the best answer."""
        return self.null_score - self.candidates[0].score if self.candidates else math.inf


class Answerer:
    """Combines the windows of each question of a dataset into an answer.

    Args:
      dataset: questions and contexts.
      features: the dataset's windows.
      n_best: number of candidates per question.
      unanswerable: whether a question may have no answer, as in SQuAD 2.0.
      null_threshold: predict no answer if `null_odds` exceeds it; used if `unanswerable`.
    """

    def __init__(
        self,
        dataset: Dataset,
        features: Features,
        *,
        n_best: int,
        unanswerable: bool,
        null_threshold: float,
    ):
        self.dataset, self.features = dataset, features
        self.n_best, self.null_threshold = n_best, null_threshold
        self.unanswerable = unanswerable
        self._num_windows = np.bincount(features.window_question, minlength=len(dataset.questions))

    def answers(self, results: list[dict[str, np.ndarray]]) -> dict[str, Prediction]:
        """Returns predictions for the questions whose windows are all among the results.

        Args:
          results: results of `QuestionAnswering.eval_batch` on the host; each window at most once.
        """
        merged = {
            name: np.concatenate([np.asarray(r[name]) for r in results]) for name in results[0]
        }
        rows = np.flatnonzero(merged["counts"])
        question_R = self.features.window_question[merged["window"][rows]]
        order = np.argsort(question_R, kind="stable")
        rows, question_R = rows[order], question_R[order]
        found, first, count = np.unique(question_R, return_index=True, return_counts=True)
        return {
            self.dataset.questions[question].id: self._predict(
                question, {name: array[rows[i : i + n]] for name, array in merged.items()}
            )
            for question, i, n in zip(found, first, count)
            if n == self._num_windows[question]
        }

    def _predict(self, question: int, windows: dict[str, np.ndarray]) -> Prediction:
        context = self.dataset.contexts[self.dataset.questions[question].context]
        num_spans = windows["score_BC"].shape[1]
        score_S = windows["score_BC"].reshape(-1)
        candidates: dict[str, Candidate] = {}
        for span in np.argsort(-score_S, kind="stable"):
            if len(candidates) == self.n_best or not np.isfinite(score_S[span]):
                break
            row, column = divmod(int(span), num_spans)
            start, end = self.features.characters(
                windows["window"][row],
                windows["first_BC"][row, column],
                windows["last_BC"][row, column],
            )
            text = context[start:end]
            logits = (float(windows[name][row, column]) for name in ("start_logit", "end_logit"))
            candidates.setdefault(text, Candidate(text, start, *logits))
        return Prediction(tuple(candidates.values()), float(windows["null_score"].min()))

    def text(self, prediction: Prediction) -> str:
        """Returns the predicted answer, "" for none."""
        if self.unanswerable and prediction.null_odds > self.null_threshold:
            return ""
        return prediction.best

    def metrics(self, predictions: dict[str, Prediction]) -> dict[str, float]:
        """Returns EM and F1 over the predicted questions, and the best thresholds in SQuAD 2.0.

        {} if nothing is predicted or the dataset has no answers.
        """
        golds = self.dataset.gold_answers()
        if not predictions or not any(golds.values()):
            return {}
        golds = {key: golds[key] for key in predictions}
        odds = {key: prediction.null_odds for key, prediction in predictions.items()}
        return evaluate(
            golds,
            {key: prediction.best for key, prediction in predictions.items()},
            unanswerable=self.unanswerable,
            na_probs=odds if self.unanswerable else None,
            na_threshold=self.null_threshold,
        )

    def finish(
        self, results: list[dict[str, np.ndarray]], directory: pathlib.Path
    ) -> dict[str, float]:
        """Writes the answers in the official format, the candidates, and the odds of no answer.

        Args:
          results: as in `answers`, for all windows.
          directory: the output directory; created if it does not exist.

        Returns:
          The metrics.
        """
        predictions = self.answers(results)
        directory.mkdir(parents=True, exist_ok=True)
        texts = {key: self.text(prediction) for key, prediction in predictions.items()}
        _write_json(directory / PREDICTIONS, texts)
        n_best = {key: self.n_best_of(prediction) for key, prediction in predictions.items()}
        _write_json(directory / N_BEST, n_best)
        if self.unanswerable:
            odds = {key: prediction.null_odds for key, prediction in predictions.items()}
            _write_json(directory / NULL_ODDS, odds)
        return self.metrics(predictions)

    def n_best_of(self, prediction: Prediction) -> list[dict]:
        """Returns the candidates (in SQuAD 2.0 including "") with the softmax of their scores."""
        entries = [
            {
                "text": c.text,
                "score": c.score,
                "start_logit": c.start_logit,
                "end_logit": c.end_logit,
            }
            for c in prediction.candidates
        ]
        if self.unanswerable:
            entries.append({"text": "", "score": prediction.null_score})
            entries.sort(key=lambda entry: -entry["score"])
        score = np.array([entry["score"] for entry in entries])
        weight = np.exp(score - score.max(initial=-np.inf))
        for entry, probability in zip(entries, weight / weight.sum()):
            entry["probability"] = float(probability)
        return entries


def _write_json(path: pathlib.Path, content: dict) -> None:
    """Writes a JSON file atomically, one question per line."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in content.items()
    )
    with atomically(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
