"""Reads labeled texts from files and from prepared TensorFlow Datasets.

GLUE's files are tab-separated without quoting, with a header line of column names and a few
malformed rows.
"""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from sibert_jax.data import DataError
from sibert_jax.data.tables import (
    Table,
    find_column,
    no_column,
    one_file,
    plain_text,
    read_table,
)
from sibert_jax.data.tfds_source import tfds_examples
from sibert_jax.tasks.classification.dataset import Dataset
from sibert_jax.tasks.finetuning import listed

_WHOLE = re.compile(r"[+-]?\d+\.0+")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N examples in the order of their file.

    Args:
      name: name in messages and prediction files, such as "SST-2_dev".
      ids: the ids of the examples, used as keys of the predictions.
      texts: one list of N strings per text column.
      labels: (N,) int32 classes or float32 scores; None if the file has none.
      report: a line on the rows that were skipped, if any.
    """

    name: str
    ids: list[str]
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    report: tuple[str, ...] = ()

    def subset(self, keep_N: np.ndarray) -> "Examples":
        """Returns the examples that a mask keeps."""
        indices = np.flatnonzero(keep_N)
        return Examples(
            self.name,
            [self.ids[i] for i in indices],
            tuple([column[i] for i in indices] for column in self.texts),
            None if self.labels is None else self.labels[indices],
            self.report,
        )


@dataclasses.dataclass(frozen=True)
class RawExamples:
    """Examples with their labels as written; `places` holds the file and line of each."""

    name: str
    ids: list[str]
    places: list[str]
    texts: tuple[list[str], ...]
    labels: list[str] | None
    report: tuple[str, ...] = ()


def read_examples(
    source: str, path: str, dataset: Dataset, *, strict: bool = False, labeled: bool = False
) -> Examples:
    """Reads one set, like `read_raw` but with the labels as numbers.

    Raises:
      DataError: as for `read_raw`, or a label is invalid; the message names file and line.
    """
    raw = read_raw(source, path, dataset, strict=strict, labeled=labeled)
    labels = None
    if raw.labels is not None:
        values = [_label(*pair, dataset) for pair in zip(raw.places, raw.labels)]
        labels = np.array(values, np.int32 if dataset.labels else np.float32)
    return Examples(raw.name, raw.ids, raw.texts, labels, raw.report)


def read_raw(
    source: str, path: str, dataset: Dataset, *, strict: bool = False, labeled: bool = False
) -> RawExamples:
    """Reads one set with its labels as written.

    Skips rows with too few or too many fields (as in the official files of QQP), rows without a
    label and, in own data, rows with a label and an empty text; `report` says how many and names
    the first.

    Args:
      source: "files" or "tfds".
      path: a file, or a glob that matches one; or `DIR:SPLIT`.
      dataset: the description of the columns.
      strict: whether to raise at such a row instead.
      labeled: whether to raise if there is no label column, instead of returning None.

    Raises:
      DataError: the set cannot be read, is empty, or lacks a column; the message names file and
        line.
    """
    if source == "tfds":
        return _read_tfds(path, dataset)
    table = open_table(one_file(path), dataset, dataset.format)
    texts, label = text_columns(table, dataset), find_column(table, dataset.label_columns)
    if label is None and labeled:
        raise DataError(
            f"{table.file.name} has no labels: {no_column(table, dataset.label_columns[0])}"
        )
    index = find_column(table, dataset.id_columns)
    ids, skipped, count = Ids(), [], 0
    columns, labels, places = tuple([] for _ in texts), [], []
    for where, row in table.rows:
        if not row and len(table.columns) > 1:
            continue
        count += 1
        row = row or [""]
        fields = [plain_text(row[i]) if i < len(row) else "" for i in texts]
        value = "" if label is None or label >= len(row) else plain_text(row[label])
        reason = ""
        if len(row) != len(table.columns):
            reason = wrong_number(where, row, table.columns, table.separator)
        elif None in (*fields, value):
            reason = f"{where} holds a list or an object where text or a number is expected"
        elif label is not None and value.strip() == dataset.no_label:
            reason = f"{where}: no label"
            if dataset.no_label:
                reason = _unknown(where, value, dataset)
        elif label is not None and not dataset.is_official:
            empty = [names[0] for names, text in zip(dataset.texts, fields) if not text.strip()]
            reason = f"{where}: the text {empty[0]!r} is empty" if empty else ""
        if reason and strict:
            raise DataError(f"{reason}; task.strict=False skips such rows")
        if reason:
            skipped.append(reason)
            continue
        ids.add(where, None if index is None else plain_text(row[index]))
        places.append(where)
        labels.append(value.strip() if dataset.is_official else own_label(value))
        for column, text in zip(columns, fields):
            column.append(text)
    if not places:
        raise DataError(skipped[0] if skipped else f"{table.file} has no examples after the header")
    quoted = [*columns, labels] if table.format == "tsv" and not dataset.is_official else []
    if len(places) > 1 and any(all(map(_is_quoted, values)) for values in quoted):
        raise DataError(
            f"{table.file}: all texts or all labels are in quotes, which are ordinary characters "
            "in TSV; set data.format=csv, which takes tabs too"
        )
    report = f"{len(skipped):,} of {count:,} rows skipped, the first: {(*skipped, '')[0]}"
    return RawExamples(
        set_name(table.file),
        list(ids.places),
        places,
        columns,
        None if label is None else labels,
        (report,) if skipped else (),
    )


def own_label(text: str) -> str:
    """Strips a label; whole numbers lose their fraction.

    Example:
      >>> [own_label(text) for text in (" very good ", "4.0", "4.5")]
      ['very good', '4', '4.5']
    """
    text = text.strip()
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def open_table(file: pathlib.Path, dataset: Dataset, format: str) -> Table:
    """Opens a file, adding column names where official files have none."""
    table = read_table(file, format, header=dataset.header)
    if dataset.header and lacks_header(table.columns, dataset):
        table = read_table(file, format, header=False)._replace(columns=dataset.unnamed_columns)
    return table


def text_columns(table: Table, dataset: Dataset) -> list[int]:
    """Returns the indices of the text columns; raises DataError if one is missing."""
    if missing := missing_text(table, dataset):
        hint = (
            "its first line must name the columns, and data.path must hold the data of task.dataset"
            if dataset.is_official
            else "name its columns in data.text and data.label; if its first line is an example, "
            "give numbers and data.header=False, or data.format=label_first"
        )
        raise DataError(no_column(table, missing, f", which {dataset.name} needs; {hint}"))
    return [find_column(table, names) for names in dataset.texts]


def missing_text(table: Table, dataset: Dataset) -> str:
    """Returns the first missing text column; "" if there is none."""
    absent = (names[0] for names in dataset.texts if find_column(table, names) is None)
    return next(absent, "")


def lacks_header(first: Sequence[str], dataset: Dataset) -> bool:
    """Tells whether the first line of a file is data, as in the original CoLA files."""
    columns = dataset.unnamed_columns
    if not columns or len(first) != len(columns):
        return False
    table = Table(pathlib.Path(), "tsv", tuple(first), iter(()))
    return bool(missing_text(table, dataset)) and first[columns.index("label")] in dataset.labels


def wrong_number(where: str, fields: list[str], columns: Sequence[str], separator: str) -> str:
    """Returns a message on a row with too few or too many fields."""
    return (
        f"{where} has {len(fields)} {separator}-separated fields, expected "
        f"{len(columns)}: {', '.join(columns)}"
    )


def set_name(file: pathlib.Path) -> str:
    """Returns the name of a set, from its folder and file name."""
    return f"{file.resolve().parent.name}_{file.name.split('.')[0]}"


class Ids:
    """The distinct ids of examples; `places` maps each to its file and line."""

    def __init__(self):
        self.places: dict[str, str] = {}

    def add(self, where: str, key: str | None) -> None:
        """Adds an id (None: the number of ids so far); raises DataError for a duplicate."""
        key = str(len(self.places)) if key is None else key
        if key in self.places:
            raise DataError(f"{where}: duplicate id {key!r}, first seen in {self.places[key]}")
        self.places[key] = where


def _label(where: str, text: str, dataset: Dataset) -> int | float:
    if dataset.labels:
        if text not in dataset.labels:
            raise DataError(_unknown(where, text, dataset))
        return dataset.labels.index(text)
    score = number(text)
    if dataset.is_official:
        low, high = dataset.score_range
        if not low <= score <= high:
            raise DataError(
                f"{where}: the score {text!r} is not a number from {low:g} to {high:g}, as "
                f"{dataset.name} has"
            )
    elif not math.isfinite(score):
        raise DataError(f"{where}: the score {text!r} is not a number")
    return score


def number(text: str) -> float:
    """Parses a number; nan if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _unknown(where: str, label: str, dataset: Dataset) -> str:
    nearest = difflib.get_close_matches(label, dataset.labels, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest and not dataset.is_official else ""
    return (
        f"{where}: unknown label {label!r}; the labels of {dataset.name} are "
        f"{listed(dataset.labels)}{hint}"
    )


def _read_tfds(path: str, dataset: Dataset) -> RawExamples:
    """Reads the features of a TFDS dataset: texts, a numeric label, GLUE's "idx"."""
    label = "label" if dataset.is_official else dataset.label_columns[0]
    index = ("idx",) if dataset.is_official else ()
    rest: Iterator[dict] = iter(tfds_examples(path, (label, *index)))
    first = next(rest, None)
    if first is None:
        raise DataError(f"{path} has no examples")
    features = [next((n for n in alias if n in first), None) for alias in dataset.texts]
    if None in features:
        names = [name for names in dataset.texts for name in names]
        raise DataError(f"{path} has the features {sorted(first)} but none of {names}")
    is_labeled = not isinstance(first[label], (int, np.integer)) or first[label] >= 0  # -1: test
    ids, places, labels, columns = Ids(), [], [], tuple([] for _ in features)
    for count, example in enumerate((first, *rest)):
        key = str(example["idx"]) if index else str(count)
        where, value = f"{path}, example {key}", _text(example[label])
        is_class = dataset.is_official and dataset.labels and 0 <= int(value) < len(dataset.labels)
        ids.add(where, key)
        places.append(where)
        labels.append(dataset.labels[int(value)] if is_class else str(value))
        for column, name in zip(columns, features):
            column.append(_text(example[name]))
    directory, _, split = path.rpartition(":")
    folder = [part for part in pathlib.Path(directory).parts if not part[0].isdigit()][-1]
    name = re.sub(r"\W+", "_", f"{folder}_{split}")
    return RawExamples(name, list(ids.places), places, columns, labels if is_labeled else None)


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
