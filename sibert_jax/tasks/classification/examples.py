"""Labelled sentences from TSV files and from prepared TensorFlow Datasets."""

import dataclasses
import math
import pathlib
import re

import numpy as np

from sibert_jax.data import DataError
from sibert_jax.data.text_files import read_lines
from sibert_jax.data.tfds_source import tfds_examples
from sibert_jax.tasks.classification.glue import (
    ID_COLUMNS,
    LABEL_COLUMNS,
    MAX_SCORE,
    NO_LABEL,
    GlueTask,
)
from sibert_jax.tasks.classification.tables import (
    Table,
    has_no_names,
    one_file,
    place,
    wrong_number,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N examples in the order of their file.

    Args:
      name: what to call them, such as "SST-2_dev".
      ids: what predictions are listed under.
      texts: one list a text column, N strings each.
      labels: (N,) int32 classes, or float32 scores; None where the file has none.
      report: what was left out, a line each.
    """

    name: str
    ids: list[str]
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    report: tuple[str, ...] = ()

    def subset(self, keep_N: np.ndarray) -> "Examples":
        """The examples that a mask keeps."""
        places = np.flatnonzero(keep_N)
        return Examples(
            self.name,
            [self.ids[i] for i in places],
            tuple([column[i] for i in places] for column in self.texts),
            None if self.labels is None else self.labels[places],
            self.report,
        )


def read_examples(source: str, path: str, task: GlueTask, *, strict: bool = False) -> Examples:
    """Reads one set.

    A row with too few or too many fields, as the official files of QQP have, is left out, and so is
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
    return _from_table(Table(one_file(path), task, strict), task, labelled=True)


def read_new_text(path: str, task: GlueTask) -> Examples:
    """Reads text to label: a file as above whose labels are left aside, or one without a header.

    Without a header each line is one example: a sentence, or two with a tab between.
    """
    file = one_file(path)
    lines = list(read_lines(file))
    if not lines:
        raise DataError(f"{file} is empty; give a line an example")
    first = lines[0].split("\t")
    if has_no_names(first, task) or None not in [place(first, names) for names in task.texts]:
        return _from_table(Table(file, task, strict=False), task, labelled=False)
    columns = [f"text {i + 1}" for i in range(len(task.texts))]
    rows = [(f"{file}, line {i}", line.split("\t")) for i, line in enumerate(lines, start=1)]
    if wrong := [(where, row) for where, row in rows if len(row) != len(columns)]:
        raise DataError(wrong_number(*wrong[0], columns))
    examples = _Collected(task, labelled=False)
    for where, fields in rows:
        examples.add(where, None, fields, None)
    return examples.finish(_set_name(file))


def _from_table(table: Table, task: GlueTask, *, labelled: bool) -> Examples:
    texts = [table.place(names) for names in task.texts]
    label = table.place(LABEL_COLUMNS) if labelled else None
    index = table.place(ID_COLUMNS)
    examples = _Collected(task, labelled=label is not None)
    for where, row in table.rows():
        try:
            value = None if label is None else _label(where, row[label], task)
        except DataError as error:
            if row[label] != NO_LABEL:
                raise
            table.leave_out(str(error))
            continue
        examples.add(where, None if index is None else row[index], [row[i] for i in texts], value)
    if not examples.ids:
        raise DataError(
            table.left_out[0]
            if table.left_out
            else f"{table.file} has no example; there is nothing after the names of the columns"
        )
    return examples.finish(_set_name(table.file), table.report())


def _set_name(file: pathlib.Path) -> str:
    return f"{file.resolve().parent.name}_{file.name.split('.')[0]}"


class _Collected:
    """Examples as they are read, one after another."""

    def __init__(self, task: GlueTask, *, labelled: bool):
        self.ids: dict[str, str] = {}  # where each of them is
        self._texts = tuple([] for _ in task.texts)
        self._labels = [] if labelled else None
        self._dtype = np.int32 if task.labels else np.float32

    def add(self, where: str, key: str | None, texts: list[str], label: float | None) -> None:
        """Adds one; `key` None: its place is its id. Raises DataError if the id was there."""
        key = str(len(self.ids)) if key is None else key
        if key in self.ids:
            raise DataError(f"{where}: the id {key!r} was there before, in {self.ids[key]}")
        self.ids[key] = where
        for column, text in zip(self._texts, texts):
            column.append(text)
        if self._labels is not None:
            self._labels.append(label)

    def finish(self, name: str, report: tuple[str, ...] = ()) -> Examples:
        """All of them."""
        labels = None if self._labels is None else np.array(self._labels, self._dtype)
        return Examples(name, list(self.ids), self._texts, labels, report)


def _label(where: str, text: str, task: GlueTask) -> int | float:
    if task.labels:
        if text not in task.labels:
            raise DataError(
                f"{where}: the label {text!r} is unknown; {task.name} has {', '.join(task.labels)}"
            )
        return task.labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= MAX_SCORE:
        raise DataError(
            f"{where}: the score {text!r} is no number from 0 to {MAX_SCORE:g}, as {task.name} has"
        )
    return score


def _read_tfds(path: str, task: GlueTask) -> Examples:
    """Reads the features that TFDS's "glue" has: texts, "label" as a number, "idx"."""
    names = [name for names in task.texts for name in names]
    rest = iter(tfds_examples(path, ("label", "idx")))
    first = next(rest, None)
    if first is None:
        raise DataError(f"{path} has no example")
    wanted = [next((n for n in alias if n in first), None) for alias in task.texts]
    if None in wanted:
        raise DataError(f"{path} has the features {sorted(first)} but none of {names}")
    examples = _Collected(task, labelled=first["label"] >= 0)  # -1 in test sets
    for example in (first, *rest):
        where, value = f"{path}, example {example['idx']}", int(example["label"])
        label = None
        if first["label"] >= 0:
            is_class = task.labels and 0 <= value < len(task.labels)
            label = _label(where, task.labels[value] if is_class else str(example["label"]), task)
        texts = [_text(example[name]) for name in wanted]
        examples.add(where, str(example["idx"]), texts, label)
    directory, _, split = path.rpartition(":")
    folder = [part for part in pathlib.Path(directory).parts if not part[0].isdigit()][-1]
    return examples.finish(re.sub(r"\W+", "_", f"{folder}_{split}"))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
