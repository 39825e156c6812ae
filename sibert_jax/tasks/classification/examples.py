"""Labelled sentences from TSV files and from prepared TensorFlow Datasets."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np

from sibert_jax.data import DataError
from sibert_jax.data.text_files import matching_files, read_lines
from sibert_jax.data.tfds_source import tfds_examples
from sibert_jax.tasks.classification.glue import ID_COLUMNS, LABEL_COLUMNS, MAX_SCORE, GlueTask


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N examples in the order of their file.

    Args:
      name: what to call them, such as "SST-2_dev".
      ids: what predictions are listed under.
      texts: one list a text column, N strings each.
      labels: (N,) int32 classes, or float32 scores; None where the file has none.
    """

    name: str
    ids: list[str]
    texts: tuple[list[str], ...]
    labels: np.ndarray | None

    def subset(self, keep_N: np.ndarray) -> "Examples":
        """The examples that a mask keeps."""
        places = np.flatnonzero(keep_N)
        return Examples(
            self.name,
            [self.ids[i] for i in places],
            tuple([column[i] for i in places] for column in self.texts),
            None if self.labels is None else self.labels[places],
        )


def read_examples(source: str, path: str, task: GlueTask) -> Examples:
    """Reads one set.

    Args:
      source: "files" or "tfds".
      path: a file or glob that matches one, or `DIR:SPLIT`.
      task: which columns and labels there are.

    Raises:
      DataError: it cannot be read, is empty, lacks a column or has a row that does not fit; the
        message names file and line.
    """
    if source == "tfds":
        return _read_tfds(path, task)
    file = _one_file(path)
    lines = read_lines(file)
    header = next(lines, "").split("\t")
    return _collect(_set_name(file), _tsv_rows(file, header, lines), *_places(file, header, task))


def read_new_text(path: str, task: GlueTask) -> Examples:
    """Reads text to label: a file as above whose labels are left aside, or one without a header.

    Without a header each line is one example: a sentence, or two with a tab between.
    """
    file = _one_file(path)
    lines = list(read_lines(file))
    if not lines:
        raise DataError(f"{file} is empty; give a line an example")
    header = lines[0].split("\t")
    if all(_first(header, names) is not None for names in task.texts):
        texts, _, index, _ = _places(file, header, task)
        rows = _tsv_rows(file, header, iter(lines[1:]))
    else:
        texts, index = list(range(len(task.texts))), None
        rows = _tsv_rows(file, [f"text {i + 1}" for i in texts], iter(lines), first_line=1)
    return _collect(_set_name(file), rows, texts, None, index, task)


def _one_file(path: str) -> pathlib.Path:
    files = matching_files(path)
    if len(files) > 1:
        raise DataError(f"{path!r} matches {len(files)} files, {files[0]} among them; name one")
    return files[0]


def _set_name(file: pathlib.Path) -> str:
    return f"{file.resolve().parent.name}_{file.name.split('.')[0]}"


def _first(header: list[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _places(file: pathlib.Path, header: list[str], task: GlueTask) -> tuple:
    """Which columns hold the texts, the label and the id; the last two may be absent."""
    if header == [""]:
        raise DataError(f"{file} is empty; its first line must name the columns")
    texts = [_first(header, names) for names in task.texts]
    if None in texts:
        missing = task.texts[texts.index(None)][0]
        raise DataError(
            f"{file} has the columns {header} but no {missing!r}, which {task.name} needs; are "
            "data.path and task.dataset of the same task?"
        )
    return texts, _first(header, LABEL_COLUMNS), _first(header, ID_COLUMNS), task


def _tsv_rows(
    file: pathlib.Path, header: list[str], lines: Iterator[str], first_line: int = 2
) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines, start=first_line):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise DataError(
                f"{file}, line {number} has {len(fields)} fields separated by tabs, wanted "
                f"{len(header)}: {', '.join(header)}"
            )
        yield f"{file}, line {number}", fields


def _collect(
    name: str,
    rows: Iterator[tuple[str, list]],
    texts: list[int],
    label: int | None,
    index: int | None,
    task: GlueTask,
) -> Examples:
    """Checks rows and puts them together; `texts`, `label` and `index` are places in a row."""
    ids: dict[str, str] = {}
    columns, labels = tuple([] for _ in texts), []
    where = name
    for where, row in rows:
        example_id = str(len(ids) if index is None else row[index])
        if example_id in ids:
            raise DataError(
                f"{where}: the id {example_id!r} was there before, in {ids[example_id]}"
            )
        ids[example_id] = where
        for column, place in zip(columns, texts):
            column.append(row[place])
        if label is not None:
            labels.append(_label(where, row[label], task))
    if not ids:
        raise DataError(f"{where} has no example; there is nothing after the names of the columns")
    dtype = np.int32 if task.labels else np.float32
    return Examples(name, list(ids), columns, None if label is None else np.array(labels, dtype))


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
    examples = iter(tfds_examples(path, ("label", "idx")))
    first = next(examples, None)
    if first is None:
        raise DataError(f"{path} has no example")
    wanted = [next((n for n in alias if n in first), None) for alias in task.texts]
    if None in wanted:
        raise DataError(f"{path} has the features {sorted(first)} but none of {names}")
    is_labelled = first["label"] >= 0  # -1 in test sets

    def rows() -> Iterator[tuple[str, list]]:
        for example in (first, *examples):
            value = example["label"]
            is_class = task.labels and 0 <= int(value) < len(task.labels)
            label = task.labels[int(value)] if is_class else str(value)
            texts = [_text(example[name]) for name in wanted]
            yield f"{path}, example {example['idx']}", [*texts, label, str(example["idx"])]

    places = list(range(len(wanted)))
    directory, _, split = path.rpartition(":")
    folder = [part for part in pathlib.Path(directory).parts if not part[0].isdigit()][-1]
    name = re.sub(r"\W+", "_", f"{folder}_{split}")
    return _collect(
        name, rows(), places, len(wanted) if is_labelled else None, len(wanted) + 1, task
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
