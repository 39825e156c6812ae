"""Labeled sentences from GLUE's tab-separated files and from prepared TensorFlow Datasets.

The files have no quoting, a header line of column names, and a few malformed rows.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sibert_jax.data import DataError
from sibert_jax.data.text_files import matching_files, read_lines
from sibert_jax.data.tfds_source import tfds_examples
from sibert_jax.tasks.classification.glue import (
    ID_COLUMNS,
    LABEL_COLUMNS,
    MAX_SCORE,
    NO_LABEL,
    GlueTask,
)

LONGEST_SHOWN = 40  # characters of a column's name in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N examples in the order of their file.

    Args:
      name: for messages and files of predictions, such as "SST-2_dev".
      ids: the keys of the predictions.
      texts: one list for each text column, N strings each.
      labels: (N,) int32 classes, or float32 scores; None where the file has none.
      report: a line on the rows that were skipped, if any were.
    """

    name: str
    ids: list[str]
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    report: tuple[str, ...] = ()

    def subset(self, keep_N: np.ndarray) -> "Examples":
        """The examples that a mask keeps."""
        indices = np.flatnonzero(keep_N)
        return Examples(
            self.name,
            [self.ids[i] for i in indices],
            tuple([column[i] for i in indices] for column in self.texts),
            None if self.labels is None else self.labels[indices],
            self.report,
        )


def read_examples(source: str, path: str, task: GlueTask, *, strict: bool = False) -> Examples:
    """Reads one set.

    A row with too few or too many fields, as the official files of QQP have, is skipped, and so is
    a pair whose label is "-"; `report` of the examples says how many and names the first.

    Args:
      source: "files" or "tfds".
      path: a file or glob that matches one, or `DIR:SPLIT`.
      task: which columns and labels there are.
      strict: raise at such a row instead.

    Raises:
      DataError: it cannot be read, is empty, lacks a column or has a label or an id that does not
        fit; the message names file and line.
    """
    if source == "tfds":
        return _read_tfds(path, task)
    return _from_table(_Table(_one_file(path), task, strict), task, labeled=True)


def read_new_text(path: str, task: GlueTask) -> Examples:
    """Reads text to label: a file as above, whose labels are ignored, or one without a header.

    Without a header each line is one example: a sentence, or two separated by a tab.
    """
    file = _one_file(path)
    lines = list(read_lines(file))
    if not lines:
        raise DataError(f"{file} is empty; expected one example per line")
    first = lines[0].split("\t")
    if _lacks_header(first, task) or None not in [_column(first, names) for names in task.texts]:
        return _from_table(_Table(file, task, strict=False), task, labeled=False)
    columns = [f"text {i + 1}" for i in range(len(task.texts))]
    examples = _Builder(task, labeled=False)
    for number, line in enumerate(lines, start=1):
        where, fields = f"{file}, line {number}", line.split("\t")
        if len(fields) != len(columns):
            raise DataError(_wrong_number(where, fields, columns))
        examples.add(where, None, fields, None)
    return examples.finish(_set_name(file))


def unlabeled(texts: Sequence[str] | Sequence[tuple[str, str]], task: GlueTask) -> Examples:
    """Examples of texts, or of pairs of them; raises DataError for the other kind."""
    pairs = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    for number, pair in enumerate(pairs):
        if len(pair) != len(task.texts):
            raise DataError(
                f"text {number} has {len(pair)} parts, and {task.name} {len(task.texts)}"
            )
    columns = tuple([pair[i] for pair in pairs] for i in range(len(task.texts)))
    return Examples("new", [str(i) for i in range(len(pairs))], columns, None)


class _Table:
    """The rows of one file, read lazily.

    Args:
      file: a TSV file, plain or compressed.
      task: gives the columns to look for.
      strict: raise at a malformed row instead of skipping it.

    Raises:
      DataError: the file cannot be read, is empty, or lacks a column of text.
    """

    def __init__(self, file: pathlib.Path, task: GlueTask, strict: bool):
        self.file, self.strict = file, strict
        self.skipped: list[str] = []  # a sentence for each row
        self.num_rows = 0
        lines = enumerate(read_lines(file), start=1)
        _, first = next(lines, (0, ""))
        if not first:
            raise DataError(f"{file} is empty; its first line must name the columns")
        self.columns = first.split("\t")
        if _lacks_header(self.columns, task):
            self.columns = list(task.unnamed_columns)
            lines = enumerate(read_lines(file), start=1)
        elif missing := [names[0] for names in task.texts if self.column(names) is None]:
            shown = [name[:LONGEST_SHOWN] for name in self.columns]
            raise DataError(
                f"{file} has the columns {shown} but no {missing[0]!r}, which {task.name} needs; "
                "its first line must name the columns, and data.path and task.dataset be of the "
                "same task"
            )
        self._lines = lines

    def column(self, names: Iterable[str]) -> int | None:
        """The index of the column with one of the names, tried in order; None if there is none."""
        return _column(self.columns, names)

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """File and line of each row, and its fields; skips empty lines and malformed rows."""
        for number, line in self._lines:
            if not line and len(self.columns) > 1:
                continue
            self.num_rows += 1
            fields, where = line.split("\t"), f"{self.file}, line {number}"
            if len(fields) == len(self.columns):
                yield where, fields
            else:
                self.skip(_wrong_number(where, fields, self.columns))

    def skip(self, reason: str) -> None:
        """Counts a malformed row; raises if the table is strict."""
        if self.strict:
            raise DataError(reason)
        self.skipped.append(reason)

    def report(self) -> tuple[str, ...]:
        """A line on the rows that were skipped, if any were."""
        if not self.skipped:
            return ()
        return (
            f"{len(self.skipped):,} of {self.num_rows:,} rows skipped, the first: "
            f"{self.skipped[0]}",
        )


def _lacks_header(first: list[str], task: GlueTask) -> bool:
    """Whether the first line of a file is a row, as in CoLA's own files."""
    columns = task.unnamed_columns
    if len(first) != len(columns) or all(_column(first, names) is not None for names in task.texts):
        return False
    return first[_column(columns, LABEL_COLUMNS)] in task.labels


def _column(columns: Iterable[str], names: Iterable[str]) -> int | None:
    """The index of the first of the names that a column has, ignoring case."""
    found = [column.strip().lower() for column in columns]
    return next((found.index(name.lower()) for name in names if name.lower() in found), None)


def _wrong_number(where: str, fields: list[str], columns: list[str]) -> str:
    return (
        f"{where} has {len(fields)} tab-separated fields, expected {len(columns)}: "
        f"{', '.join(columns)}"
    )


def _one_file(path: str) -> pathlib.Path:
    files = matching_files(path)
    if len(files) > 1:
        raise DataError(f"{path!r} matches {len(files)} files, {files[0]} among them; name one")
    return files[0]


def _from_table(table: _Table, task: GlueTask, *, labeled: bool) -> Examples:
    texts = [table.column(names) for names in task.texts]
    label = table.column(LABEL_COLUMNS) if labeled else None
    index = table.column(ID_COLUMNS)
    examples = _Builder(task, labeled=label is not None)
    for where, row in table.rows():
        try:
            value = None if label is None else _label(where, row[label], task)
        except DataError as error:
            if row[label] != NO_LABEL:
                raise
            table.skip(str(error))
            continue
        examples.add(where, None if index is None else row[index], [row[i] for i in texts], value)
    if not examples.ids:
        raise DataError(
            table.skipped[0]
            if table.skipped
            else f"{table.file} has no examples after the names of the columns"
        )
    return examples.finish(_set_name(table.file), table.report())


def _set_name(file: pathlib.Path) -> str:
    return f"{file.resolve().parent.name}_{file.name.split('.')[0]}"


class _Builder:
    """Collects examples one by one."""

    def __init__(self, task: GlueTask, *, labeled: bool):
        self.ids: dict[str, str] = {}  # to file and line
        self._texts = tuple([] for _ in task.texts)
        self._labels = [] if labeled else None
        self._dtype = np.int32 if task.labels else np.float32

    def add(self, where: str, key: str | None, texts: list[str], label: float | None) -> None:
        """Adds one; without a `key` its index is its id. Raises DataError for a duplicate id."""
        key = str(len(self.ids)) if key is None else key
        if key in self.ids:
            raise DataError(f"{where}: duplicate id {key!r}, first seen in {self.ids[key]}")
        self.ids[key] = where
        for column, text in zip(self._texts, texts):
            column.append(text)
        if self._labels is not None:
            self._labels.append(label)

    def finish(self, name: str, report: tuple[str, ...] = ()) -> Examples:
        labels = None if self._labels is None else np.array(self._labels, self._dtype)
        return Examples(name, list(self.ids), self._texts, labels, report)


def _label(where: str, text: str, task: GlueTask) -> int | float:
    if task.labels:
        if text not in task.labels:
            raise DataError(
                f"{where}: unknown label {text!r}; the labels of {task.name} are "
                f"{', '.join(task.labels)}"
            )
        return task.labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= MAX_SCORE:
        raise DataError(
            f"{where}: the score {text!r} is not a number from 0 to {MAX_SCORE:g}, as {task.name} "
            "has"
        )
    return score


def _read_tfds(path: str, task: GlueTask) -> Examples:
    """Reads the features that TFDS's "glue" has: texts, "label" as a number, "idx"."""
    names = [name for names in task.texts for name in names]
    rest = iter(tfds_examples(path, ("label", "idx")))
    first = next(rest, None)
    if first is None:
        raise DataError(f"{path} has no examples")
    features = [next((n for n in alias if n in first), None) for alias in task.texts]
    if None in features:
        raise DataError(f"{path} has the features {sorted(first)} but none of {names}")
    is_labeled = first["label"] >= 0  # -1 in test sets
    examples = _Builder(task, labeled=is_labeled)
    for example in (first, *rest):
        where, value = f"{path}, example {example['idx']}", int(example["label"])
        label = None
        if is_labeled:
            is_class = task.labels and 0 <= value < len(task.labels)
            label = _label(where, task.labels[value] if is_class else str(example["label"]), task)
        texts = [_text(example[name]) for name in features]
        examples.add(where, str(example["idx"]), texts, label)
    directory, _, split = path.rpartition(":")
    folder = [part for part in pathlib.Path(directory).parts if not part[0].isdigit()][-1]
    return examples.finish(re.sub(r"\W+", "_", f"{folder}_{split}"))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
