"""SQuAD 1.1 and 2.0: files and official metrics. Notation: Q questions.

Nothing here needs JAX.
"""

import collections
import dataclasses
import json
import pathlib
import re
import string
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import DataError
from sibert_jax.files import user_path

# JSON can contain a lone surrogate, as in "\\ud83d", which is not a character in UTF-8.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"  # one character for one, so that answer_start stays valid
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A gold answer."""

    text: str
    start: int  # index of its first character in the context, from the file; may be wrong


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about one context; empty `answers`: there is none, or none is known."""

    id: str
    text: str
    context: int  # index into `Dataset.contexts`
    answers: tuple[Answer, ...]
    is_impossible: bool = False  # the file says that there is no answer


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The questions of one file, in its order."""

    name: str
    contexts: tuple[str, ...]
    questions: tuple[Question, ...]
    unanswerable: bool  # SQuAD 2.0: some questions have no answer, or none is known
    report: tuple[str, ...] = ()  # replaced characters, one line

    @property
    def is_labeled(self) -> bool:
        """Whether the file has answers, or marks questions as unanswerable."""
        return any(question.answers or question.is_impossible for question in self.questions)

    def gold_answers(self) -> dict[str, list[str]]:
        """Returns the gold answer texts of each question id."""
        return {q.id: [answer.text for answer in q.answers] for q in self.questions}


def read_dataset(path: str | pathlib.Path, *, unique_ids: bool = True) -> Dataset:
    """Reads a file in the official format, `.json`, `.json.gz` or `.json.xz`.

    Args:
      path: `{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
        "answer_start"}], "is_impossible" (2.0)}]}]}]}`; other keys are ignored. An id may be an
        integer; a question without `answers` has none. A lone surrogate becomes U+FFFD and is
        reported.
      unique_ids: whether to reject duplicate ids, as predictions are keyed by id.

    Raises:
      DataError: the file cannot be read, is truncated or empty, or has another format or duplicate
        ids.
    """
    path = user_path(path)
    contexts, questions, seen, repair = [], [], set(), _Repair()
    for where, paragraph in _paragraphs(read_json(path), path):
        contexts.append(repair(_field(paragraph, "context", str, where), where))
        for i, entry in enumerate(_field(paragraph, "qas", list, where)):
            question = _question(entry, len(contexts) - 1, f"{where}.qas[{i}]", path, repair)
            if unique_ids and question.id in seen:
                raise DataError(f"{path} has the question id {question.id!r} twice")
            seen.add(question.id)
            questions.append(question)
    if not questions:
        raise DataError(f"{path} contains no questions")
    unanswerable = not all(question.answers for question in questions)
    return Dataset(path.name, tuple(contexts), tuple(questions), unanswerable, repair.report())


def read_new_questions(path: str | pathlib.Path) -> Dataset:
    """Reads questions to answer: a SQuAD file, or lines of question, tab, context.

    The id of a question from lines is its line number. A blank line is an empty question about an
    empty context, so that answers and lines have the same numbers.

    Raises:
      DataError: as for `read_dataset`, or a line does not have exactly one tab, or all lines are
        blank.
    """
    path = user_path(path)
    if ".json" in path.suffixes:
        return read_dataset(path)
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        parts = [part.strip() for part in line.split("\t")] if line.strip() else ["", ""]
        if len(parts) != 2 or bool(parts[0]) != bool(parts[1]):
            raise DataError(
                f"{path}, line {number}: expected a question, one tab and its context, found "
                f"{shown(line)}"
            )
        pairs.append(parts)
    if not any(question for question, _ in pairs):
        raise DataError(f"{path} contains no questions")
    return unlabeled(path.name, pairs)


def unlabeled(name: str, pairs: Sequence[Sequence[str]]) -> Dataset:
    """Returns questions to answer, from (question, context) pairs; their ids count from 1."""
    questions = [Question(str(i + 1), pair[0], i, ()) for i, pair in enumerate(pairs)]
    contexts = tuple(context for _, context in pairs)
    return Dataset(name, contexts, tuple(questions), unanswerable=True)


def read_json(path: pathlib.Path):
    """Reads a JSON file, plain or compressed.

    Raises:
      DataError: the file cannot be read, is truncated, empty or not JSON, or has a duplicate key.
    """

    def unique(pairs: list[tuple]) -> dict:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{path} has {twice!r} twice in one object")
        return content

    text = "\n".join(read_lines(path))
    if not text.strip():
        raise DataError(f"{path} is empty; expected JSON")
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None


def _paragraphs(content, path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    for i, article in enumerate(_field(content, "data", list, str(path))):
        where = f"{path}: data[{i}]"
        for j, paragraph in enumerate(_field(article, "paragraphs", list, where)):
            yield f"{where}.paragraphs[{j}]", paragraph


class _Repair:
    """Replaces lone surrogates by U+FFFD, and counts them."""

    def __init__(self):
        self.count, self.first = 0, ""

    def __call__(self, text: str, where: str) -> str:
        repaired, count = LONE_SURROGATE.subn(REPLACEMENT, text)
        self.first = self.first or (where if count else "")
        self.count += count
        return repaired

    def report(self) -> tuple[str, ...]:
        if not self.count:
            return ()
        return (
            f"{self.count:,} unpaired surrogate{'s' if self.count > 1 else ''} replaced by U+FFFD, "
            f"the first in {self.first}",
        )


def _question(entry, context: int, where: str, path: pathlib.Path, repair: _Repair) -> Question:
    if isinstance(entry, dict) and type(entry.get("id")) is int:
        entry = entry | {"id": str(entry["id"])}
    key = _field(entry, "id", str, where)
    where = f"{path}: question {key!r}"
    text = repair(_field(entry, "question", str, where), where)
    golds = [] if entry.get("answers") is None else _field(entry, "answers", list, where)
    answers = tuple(
        Answer(
            repair(_field(answer, "text", str, where), where),
            _field(answer, "answer_start", int, where),
        )
        for answer in golds
    )
    is_impossible = entry.get("is_impossible") is True
    if answers and is_impossible:
        raise DataError(f"{where} has is_impossible=true but also answers; remove one of them")
    return Question(key, text, context, answers, is_impossible)


def _field(entry, key: str, kind: type, where: str):
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {shown(entry)}, not an object with {key!r}")
    if key not in entry:
        raise DataError(f"{where} has no {key!r}; expected the layout of SQuAD")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = {str: "a string", list: "a list", int: "an integer"}[kind]
        raise DataError(f"{where} has {shown(value)} as {key!r}, expected {expected}")
    return value


def shown(value) -> str:
    """Formats a JSON value for a message, truncated to 40 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


def normalize_answer(text: str) -> str:
    """Lowercases, drops ASCII punctuation and the words a, an, the, and collapses whitespace.

    Example:
      >>> normalize_answer(" The  U.S. dollar's\tvalue")
      'us dollars value'

    References:
      Rajpurkar et al., SQuAD, https://arxiv.org/abs/1606.05250, §6.1.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """Returns 1.0 if both are equal after normalization, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1(prediction: str, gold: str, both_empty: float = 1.0) -> float:
    """Returns the F1 score over the normalized words, in [0, 1].

    Args:
      prediction: any text.
      gold: any text.
      both_empty: the score of two texts without words: 1 in SQuAD 2.0, 0 in SQuAD 1.1.

    Example:
      >>> f1("the old oil crisis", "oil crisis")
      0.8
    """
    found, wanted = normalize_answer(prediction).split(), normalize_answer(gold).split()
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
      answers: gold answers by question id; empty for a question without an answer.
      predictions: text by question id, "" for no answer; a missing id scores 0.
      unanswerable: whether to apply the rules of SQuAD 2.0, where some questions have no answer.
      na_probs: probability (or any score) of no answer, by question id; None: unknown.
      na_threshold: a question whose `na_probs` exceeds it counts as predicted to have no answer.

    Returns:
      `exact` and `f1` in percent, and `total` questions. If `unanswerable`, the same for questions
      with and without an answer as `HasAns_*` and `NoAns_*`; with `na_probs` also `best_exact` and
      `best_f1`, and the thresholds that achieve them.
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
    """Finds the threshold on the no-answer probability with the best mean score.

    Args:
      score_Q: scores of the predictions without a threshold, in [0, 1].
      prob_Q: no-answer probabilities, or any other numbers.
      has_answer_Q: bool, questions with an answer.
      empty_Q: bool, predictions that are "" without a threshold.

    Returns:
      The best score in percent, and the largest `prob_Q` that still counts as answered; 0.0 if
      answering no question is best. Like the official script, it may count only the first few of
      several questions with equal `prob_Q` as answered.
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
    """Returns exact match and F1 of one question, the best over its gold answers."""
    if prediction is None:
        return 0.0, 0.0
    if unanswerable:  # gold answers of only articles and punctuation do not count
        golds = [gold for gold in golds if normalize_answer(gold)] or [""]
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
