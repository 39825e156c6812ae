"""Reads texts without labels, to be classified: from files, lines or a list."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sibert_jax.data import DataError
from sibert_jax.data.tables import Table, find_column, format_of, one_file, plain_text
from sibert_jax.data.text_files import read_lines
from sibert_jax.tasks.classification.dataset import Dataset
from sibert_jax.tasks.classification.examples import (
    Examples,
    Ids,
    lacks_header,
    missing_text,
    open_table,
    set_name,
    text_columns,
    wrong_number,
)


def read_new_text(path: str, dataset: Dataset) -> Examples:
    """Reads text to classify: a file in the format of `read_raw`, labels ignored, or lines of text.

    A file whose name does not end in ".csv" or similar and whose first line does not name the
    columns has one example per line: a text, or two separated by a tab. A blank line is an empty
    text, so that answers and lines have the same numbers.
    """
    file = one_file(path)
    if format_of(file) == "tsv":
        lines = list(read_lines(file))
        if not lines:
            raise DataError(f"{file} is empty; expected one example per line")
        first = Table(file, "tsv", tuple(lines[0].split("\t")), iter(()))
        has_columns = len(first.columns) > len(dataset.texts)
        if dataset.header:
            has_columns = not missing_text(first, dataset)
        if not has_columns and not lacks_header(first.columns, dataset):
            return _lines(file, lines, dataset)
    table = open_table(file, dataset, "auto")
    in_order = not dataset.header and len(table.columns) == len(dataset.texts)
    texts = range(len(dataset.texts)) if in_order else text_columns(table, dataset)
    index = find_column(table, dataset.id_columns)
    ids, columns, skipped = Ids(), tuple([] for _ in texts), []
    for where, row in table.rows:
        row = row or [""] * len(table.columns)
        if len(row) != len(table.columns):
            skipped.append(wrong_number(where, row, table.columns, table.separator))
            continue
        fields = [plain_text(row[i]) for i in texts]
        if None in fields:
            raise DataError(f"{where} holds a list or an object where text is expected")
        ids.add(where, None if index is None else plain_text(row[index]))
        for column, text in zip(columns, fields):
            column.append(text)
    if not ids.places:
        raise DataError(f"{file} has no examples after the header")
    report = tuple(f"{len(skipped):,} rows skipped, the first: {first}" for first in skipped[:1])
    return Examples(set_name(file), list(ids.places), columns, None, report)


def unlabeled(texts: Sequence[str] | Sequence[tuple[str, str]], dataset: Dataset) -> Examples:
    """Returns examples of texts or pairs; raises DataError if the dataset needs the other kind."""
    pairs = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    for number, pair in enumerate(pairs):
        if len(pair) != len(dataset.texts):
            raise DataError(
                f"text {number} has {len(pair)} parts, but an example of {dataset.name} has "
                f"{len(dataset.texts)}"
            )
    if not pairs:
        raise DataError("there is no text to predict; give at least one")
    columns = tuple([pair[i] for pair in pairs] for i in range(len(dataset.texts)))
    return Examples("new", [str(i) for i in range(len(pairs))], columns, None)


def _lines(file: pathlib.Path, lines: list[str], dataset: Dataset) -> Examples:
    names = [f"text {i + 1}" for i in range(len(dataset.texts))]
    rows = [line.split("\t") if line.strip() else [""] * len(names) for line in lines]
    for number, fields in enumerate(rows, start=1):
        if len(fields) != len(names):
            raise DataError(wrong_number(f"{file}, line {number}", fields, names, "tab"))
    examples = unlabeled(rows, dataset)
    return dataclasses.replace(examples, name=set_name(file))
