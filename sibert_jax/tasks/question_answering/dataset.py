"""Reads SQuAD JSON and prediction files; what is wrong is told with its file and question id."""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator

from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import DataError
from sibert_jax.files import user_path

# JSON can hold half of a surrogate pair, as in "\\ud83d": no character, and UTF-8 cannot write it.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"  # one character for one, so that answer_start stays right


@dataclasses.dataclass(frozen=True)
class Answer:
    """A gold answer."""

    text: str
    start: int  # characters before it in the context, as the file says; may be wrong


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about one context; without answers it has none, or none is known."""

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
    report: tuple[str, ...] = ()  # what had to be replaced, a line each

    @property
    def is_labelled(self) -> bool:
        """Whether anything is known about the answers."""
        return any(question.answers or question.is_impossible for question in self.questions)

    def gold_answers(self) -> dict[str, list[str]]:
        """The answer texts of each question id."""
        return {q.id: [answer.text for answer in q.answers] for q in self.questions}


def read_dataset(path: str | pathlib.Path, *, unique_ids: bool = True) -> Dataset:
    """Reads a file of the official layout, `.json`, `.json.gz` or `.json.xz`.

    Args:
      path: `{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
        "answer_start"}], "is_impossible" (2.0)}]}]}]}`; what else is there is not read. An id may
        be a whole number; a question without `answers` has none. Half of a surrogate pair becomes
        U+FFFD, and is reported.
      unique_ids: refuse an id that comes twice, as predictions are listed by it.

    Raises:
      DataError: the file cannot be read, is truncated or empty, has another layout, or an id twice.
    """
    path = user_path(path)
    contexts, questions, seen, mended = [], [], set(), _Mended()
    for where, paragraph in _paragraphs(read_json(path), path):
        contexts.append(mended(_field(paragraph, "context", str, where), where))
        for i, entry in enumerate(_field(paragraph, "qas", list, where)):
            question = _question(entry, len(contexts) - 1, f"{where}.qas[{i}]", path, mended)
            if unique_ids and question.id in seen:
                raise DataError(f"{path} has the question id {question.id!r} twice")
            seen.add(question.id)
            questions.append(question)
    if not questions:
        raise DataError(f"{path} holds no question")
    unanswerable = not all(question.answers for question in questions)
    return Dataset(path.name, tuple(contexts), tuple(questions), unanswerable, mended.report())


def read_new_questions(path: str | pathlib.Path) -> Dataset:
    """Reads questions to be answered: a SQuAD file, or a question, a tab and its context a line.

    The id of a question from lines is the number of its line. Blank lines are passed over.

    Raises:
      DataError: as `read_dataset`, or a line has another number of tabs.
    """
    path = user_path(path)
    if ".json" in path.suffixes:
        return read_dataset(path)
    contexts, questions = [], []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) != 2 or not all(parts):
            raise DataError(
                f"{path}, line {number}: a question, one tab and its context are wanted, found "
                f"{_shown(line)}"
            )
        questions.append(Question(str(number), parts[0], len(contexts), ()))
        contexts.append(parts[1])
    if not questions:
        raise DataError(f"{path} holds no question")
    return Dataset(path.name, tuple(contexts), tuple(questions), unanswerable=True)


def read_predictions(path: str | pathlib.Path, dataset: Dataset) -> dict[str, str]:
    """Reads {question id: answer text}, "" for no answer.

    Raises:
      DataError: as `read_dataset`; an id that the data set does not have; in SQuAD 2.0 a question
        without prediction (in 1.1 it may be missing, and scores 0).
    """
    found = _by_question(path, dataset, str, "a text", complete=dataset.unanswerable)
    return {key: LONE_SURROGATE.sub(REPLACEMENT, text) for key, text in found.items()}


def read_na_probs(path: str | pathlib.Path, dataset: Dataset) -> dict[str, float]:
    """Reads {question id: probability or odds of no answer}, one for every question.

    Raises:
      DataError: as `read_predictions`.
    """
    probs = _by_question(path, dataset, (int, float), "a number", complete=True)
    for key, value in probs.items():
        if not math.isfinite(value):
            raise DataError(f"{path}: question {key!r} has {value}, a finite number is wanted")
    return probs


def read_json(path: pathlib.Path):
    """The content of a JSON file, plain or compressed.

    Raises:
      DataError: it cannot be read, is truncated, empty or not JSON, or an object has a key twice.
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
        raise DataError(f"{path} is empty; JSON is wanted")
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


class _Mended:
    """Puts U+FFFD in the place of each half of a surrogate pair, and counts them."""

    def __init__(self):
        self.count, self.first = 0, ""

    def __call__(self, text: str, where: str) -> str:
        mended, count = LONE_SURROGATE.subn(REPLACEMENT, text)
        self.first = self.first or (where if count else "")
        self.count += count
        return mended

    def report(self) -> tuple[str, ...]:
        if not self.count:
            return ()
        return (
            f"{self.count:,} unpaired surrogate{'s' if self.count > 1 else ''} replaced by U+FFFD, "
            f"the first in {self.first}",
        )


def _question(entry, context: int, where: str, path: pathlib.Path, mended: _Mended) -> Question:
    if isinstance(entry, dict) and type(entry.get("id")) is int:
        entry = entry | {"id": str(entry["id"])}
    key = _field(entry, "id", str, where)
    where = f"{path}: question {key!r}"
    text = mended(_field(entry, "question", str, where), where)
    golds = [] if entry.get("answers") is None else _field(entry, "answers", list, where)
    answers = tuple(
        Answer(
            mended(_field(answer, "text", str, where), where),
            _field(answer, "answer_start", int, where),
        )
        for answer in golds
    )
    is_impossible = entry.get("is_impossible") is True
    if answers and is_impossible:
        raise DataError(f"{where} has is_impossible=true and yet answers; one of them is wrong")
    return Question(key, text, context, answers, is_impossible)


def _field(entry, key: str, kind: type, where: str):
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {_shown(entry)}, not an object with {key!r}")
    if key not in entry:
        raise DataError(f"{where} has no {key!r}; the layout of SQuAD is wanted")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {str: "a text", list: "a list", int: "a whole number"}[kind]
        raise DataError(f"{where} has {_shown(value)} as {key!r}, {wanted} is wanted")
    return value


def _by_question(path, dataset: Dataset, kind, wanted: str, *, complete: bool) -> dict:
    path = user_path(path)
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path} is {_shown(found)}, not an object {{question id: {wanted}}}")
    ids = {question.id for question in dataset.questions}
    if unknown := [key for key in found if key not in ids]:
        raise DataError(
            f"{path} has {len(unknown):,} question ids that {dataset.name} lacks, such as "
            f"{unknown[0]!r}; give the data set that was predicted"
        )
    if complete and (missing := [q.id for q in dataset.questions if q.id not in found]):
        raise DataError(
            f"{path} lacks {len(missing):,} of the {len(ids):,} question ids of {dataset.name}, "
            f"such as {missing[0]!r}"
        )
    for key, value in found.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{path}: question {key!r} has {_shown(value)}, {wanted} is wanted")
    return found


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
