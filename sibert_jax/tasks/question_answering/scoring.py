"""The official SQuAD metrics: exact match and F1, over all questions or by kind, and thresholds.

Letters: Q questions.
"""

import collections
import re
import string
from collections.abc import Mapping, Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Lower-cases, drops ASCII punctuation and the words a, an, the, and squeezes white space.

    Example:
      >>> normalise_answer(" The  U.S. dollar's\tvalue")
      'us dollars value'

    References:
      Rajpurkar et al., SQuAD, https://arxiv.org/abs/1606.05250, §6.1.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1.0 where both are the same once normalised, else 0.0."""
    return float(normalise_answer(prediction) == normalise_answer(gold))


def f1(prediction: str, gold: str, both_empty: float = 1.0) -> float:
    """Harmonic mean of precision and recall over the normalised words, in [0, 1].

    Args:
      prediction: any text.
      gold: any text.
      both_empty: the score of two texts without words: 1 in SQuAD 2.0, 0 in SQuAD 1.1.

    Example:
      >>> f1("the old oil crisis", "oil crisis")
      0.8
    """
    found, wanted = normalise_answer(prediction).split(), normalise_answer(gold).split()
    if not found and not wanted:
        return both_empty
    common = sum((collections.Counter(found) & collections.Counter(wanted)).values())
    return 2.0 * common / (len(found) + len(wanted))


def evaluate(
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    unanswerable: bool,
    na_probs: Mapping[str, float] | None = None,
    na_threshold: float = 1.0,
) -> dict[str, float]:
    """Scores predictions as the official scripts do.

    Args:
      answers: for each question id the texts of its gold answers, none where it has no answer.
      predictions: for each question id a text, "" for no answer; an id that is missing scores 0.
      unanswerable: whether the rules are those of SQuAD 2.0, where some questions have no answer.
      na_probs: how sure the model is that a question has no answer, any number; None: not known.
      na_threshold: a question whose `na_probs` is above it counts as predicted to have no answer.

    Returns:
      `exact` and `f1` in percent, and `total` questions. If `unanswerable`, the same for questions
      with and without answer as `HasAns_*` and `NoAns_*`; with `na_probs` also `best_exact` and
      `best_f1`, and the thresholds that give them.
    """
    ids = list(answers)
    has_answer_Q = np.array([bool(answers[i]) for i in ids], bool)
    empty_Q = np.array([predictions.get(i) == "" for i in ids], bool)
    score_Q = np.array([_scores(answers[i], predictions.get(i), unanswerable) for i in ids])
    raw = {"exact": score_Q[:, 0], "f1": score_Q[:, 1]}
    final, best = raw, {}
    if na_probs is not None:
        prob_Q = np.array([na_probs[i] for i in ids], np.float64)
        no_answer_Q = prob_Q > na_threshold
        final = {name: np.where(no_answer_Q, ~has_answer_Q, raw[name]) for name in raw}
        for name in raw:
            best[f"best_{name}"], best[f"best_{name}_thresh"] = best_threshold(
                raw[name], prob_Q, has_answer_Q, empty_Q
            )
    result = _means(final, np.ones(len(ids), bool), "")
    if unanswerable:
        result |= _means(final, has_answer_Q, "HasAns_") | _means(final, ~has_answer_Q, "NoAns_")
    return result | best


def best_threshold(
    score_Q: np.ndarray, prob_Q: np.ndarray, has_answer_Q: np.ndarray, empty_Q: np.ndarray
) -> tuple[float, float]:
    """The threshold on the no-answer probability that gives the best mean score.

    Args:
      score_Q: scores in [0, 1] if every question is answered as predicted.
      prob_Q: no-answer probabilities, or any other numbers.
      has_answer_Q: whether the question has an answer.
      empty_Q: whether the prediction is "" whatever the threshold.

    Returns:
      The best score in percent, and the largest `prob_Q` that still counts as answered; 0.0 where
      it is best to answer no question. Of questions with equal `prob_Q` perhaps only the first few
      are counted as answered: so does the official script.
    """
    order = np.argsort(prob_Q, kind="stable")
    gain_Q = np.where(has_answer_Q, score_Q, np.where(empty_Q, 0.0, -1.0))[order]
    total = np.concatenate([[0.0], np.cumsum(gain_Q)]) + float((~has_answer_Q).sum())
    best = int(np.argmax(total))
    threshold = float(prob_Q[order[best - 1]]) if best else 0.0
    return 100.0 * float(total[best]) / len(score_Q), threshold


def _scores(
    golds: Sequence[str], prediction: str | None, unanswerable: bool
) -> tuple[float, float]:
    """Exact match and F1 of one question, the best over its gold answers."""
    if prediction is None:
        return 0.0, 0.0
    if unanswerable:  # golds that are nothing but articles and punctuation do not count
        golds = [gold for gold in golds if normalise_answer(gold)] or [""]
    both_empty = float(unanswerable)
    return (
        max(exact_match(prediction, gold) for gold in golds),
        max(f1(prediction, gold, both_empty) for gold in golds),
    )


def _means(scores: dict[str, np.ndarray], chosen_Q: np.ndarray, prefix: str) -> dict[str, float]:
    total = int(chosen_Q.sum())
    row = {
        f"{prefix}{name}": 100.0 * float(score_Q[chosen_Q].sum()) / max(total, 1)
        for name, score_Q in scores.items()
    }
    return row | {f"{prefix}total": total}
