"""Tab-separated files as GLUE has them: no quoting, a line of column names, some broken rows."""

import pathlib
from collections.abc import Iterable, Iterator

from sibert_jax.data import DataError
from sibert_jax.data.text_files import matching_files, read_lines
from sibert_jax.tasks.classification.glue import LABEL_COLUMNS, GlueTask

LONGEST_SHOWN = 40  # characters of a column's name in a message


class Table:
    """The rows of one file, read when they are asked for.

    Args:
      file: a TSV file, plain or compressed.
      task: whose columns are looked for.
      strict: raise at a row with another number of fields than there are columns, instead of
        leaving it out.

    Raises:
      DataError: the file cannot be read, is empty, or lacks a column of text.
    """

    def __init__(self, file: pathlib.Path, task: GlueTask, strict: bool):
        self.file, self.strict = file, strict
        self.left_out: list[str] = []  # a sentence for each row
        self.num_rows = 0
        lines = enumerate(read_lines(file), start=1)
        _, first = next(lines, (0, ""))
        if not first:
            raise DataError(f"{file} is empty; its first line must name the columns")
        self.columns = first.split("\t")
        if has_no_names(self.columns, task):
            self.columns = list(task.unnamed_columns)
            lines = enumerate(read_lines(file), start=1)
        elif missing := [names[0] for names in task.texts if self.place(names) is None]:
            shown = [name[:LONGEST_SHOWN] for name in self.columns]
            raise DataError(
                f"{file} has the columns {shown} but no {missing[0]!r}, which {task.name} needs; "
                "its first line must name the columns, and data.path and task.dataset be of the "
                "same task"
            )
        self._lines = lines

    def place(self, names: Iterable[str]) -> int | None:
        """Which column has one of the names, in the order of the names; None: there is none."""
        return place(self.columns, names)

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Where each row is, and its fields; empty lines are passed over, broken rows left out."""
        for number, line in self._lines:
            if not line and len(self.columns) > 1:
                continue
            self.num_rows += 1
            fields, where = line.split("\t"), f"{self.file}, line {number}"
            if len(fields) == len(self.columns):
                yield where, fields
            else:
                self.leave_out(wrong_number(where, fields, self.columns))

    def leave_out(self, why: str) -> None:
        """Counts a row that does not fit; raises if the table is strict."""
        if self.strict:
            raise DataError(why)
        self.left_out.append(why)

    def report(self) -> tuple[str, ...]:
        """A line on the rows that were left out, if there were any."""
        if not self.left_out:
            return ()
        return (
            f"{len(self.left_out):,} of {self.num_rows:,} rows left out, the first: "
            f"{self.left_out[0]}",
        )


def has_no_names(first: list[str], task: GlueTask) -> bool:
    """Whether the first line of a file is a row, as in CoLA's own files."""
    columns = task.unnamed_columns
    if len(first) != len(columns) or all(place(first, names) is not None for names in task.texts):
        return False
    return first[place(columns, LABEL_COLUMNS)] in task.labels


def place(columns: Iterable[str], names: Iterable[str]) -> int | None:
    """The place of the first of the names that a column has, whatever its case."""
    found = [column.strip().lower() for column in columns]
    return next((found.index(name.lower()) for name in names if name.lower() in found), None)


def wrong_number(where: str, fields: list[str], columns: list[str]) -> str:
    """Says that a row has too few or too many fields."""
    return (
        f"{where} has {len(fields)} fields separated by tabs, wanted {len(columns)}: "
        f"{', '.join(columns)}"
    )


def one_file(path: str) -> pathlib.Path:
    """The file that a name or a glob stands for.

    Raises:
      DataError: there is none, or more than one.
    """
    files = matching_files(path)
    if len(files) > 1:
        raise DataError(f"{path!r} matches {len(files)} files, {files[0]} among them; name one")
    return files[0]
