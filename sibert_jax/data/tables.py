"""Reads tables from CSV, TSV, JSON lines and Parquet, plain or compressed."""

import csv
import difflib
import io
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sibert_jax.data.text_files import OPENERS, matching_files, read_lines
from sibert_jax.errors import DataError
from sibert_jax.files import flatten

FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "label_first")
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_SUFFIXES = {
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
SPREADSHEETS = (".xlsx", ".xls", ".ods")
_DECLARED = re.compile("sep=([,;\t])")  # the first line of some files made for Excel
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_SHOWN = 40  # maximum characters of a column name in a message
Row = tuple[str, list[Any]]  # file and line, for messages; the fields, [] if blank


class Table(NamedTuple):
    """A file of rows.

    Attributes:
      file: the path.
      format: one of `FORMATS` without "auto".
      columns: the column names; "0", "1", ... if the file has none.
      rows: an iterator that reads on demand. A field is a string; in JSON lines and Parquet any
        value, None if missing. Rows of CSV and TSV may have too few or too many fields.
      separator: the name of the field separator, such as "comma"; "" if there is none.
    """

    file: pathlib.Path
    format: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    separator: str = ""


def one_file(path: str) -> pathlib.Path:
    """Returns the file that a name, or a glob with a single match, refers to."""
    files = matching_files(path)
    if len(files) > 1:
        raise DataError(f"{path!r} matches {len(files)} files, such as {files[0]}; name one file")
    return files[0]


def format_of(file: pathlib.Path) -> str:
    """Returns the format given by a file name, such as ".csv" or ".jsonl.gz"; "tsv" by default."""
    suffixes = [suffix for suffix in file.suffixes if suffix not in OPENERS]
    return _SUFFIXES.get(suffixes[-1].lower(), "tsv") if suffixes else "tsv"


def read_table(file: pathlib.Path, format: str = "auto", *, header: bool = True) -> Table:
    """Opens a file of rows.

    Args:
      file: the file, plain, gzip or xz.
      format: "auto" uses the file name. The separator of "csv" is a comma or, if the first line has
        none, a semicolon or a tab. Quotes have no meaning in "tsv". A line of "label_first" is a
        label, white space and a text, with columns "label" and "text". The columns of "jsonl" are
        the keys of all objects, with nested keys joined by dots.
      header: whether the first row of a CSV or TSV file names the columns.

    Raises:
      DataError: the file is empty or cannot be read; iterating over the rows may raise it too.
    """
    if file.suffix.lower() in SPREADSHEETS:
        raise DataError(
            f"{file} is a spreadsheet; save its sheet as CSV (UTF-8) and name that file"
        )
    format = format_of(file) if format == "auto" else format
    if format == "jsonl":
        return _objects(file)
    if format == "parquet":
        return _parquet(file)
    if format == "label_first":
        pairs = ((where, line.split(None, 1)) for where, line in _numbered(file))
        rows = ((where, [*pair, ""][:2] if pair else []) for where, pair in pairs)
        _, rows = _peek(rows, f"{file} is empty; expected a label and a text on each line")
        return Table(file, format, ("label", "text"), rows)
    separator = _separator(file) if format == "csv" else "\t"
    rows = _csv_rows(file, separator) if format == "csv" else _tsv_rows(file)
    kind = _SEPARATORS[separator]
    if header:
        _, columns = next(rows, ("", []))
        if not columns:
            raise DataError(f"{file} is empty; its first line must name the columns")
        return Table(file, format, tuple(column.strip() for column in columns), rows, kind)
    (_, first), rows = _peek(rows, f"{file} is empty; expected one example per line")
    return Table(file, format, tuple(map(str, range(len(first)))), rows, kind)


def find_column(table: Table, names: Iterable[str]) -> int | None:
    """Returns the index of the first name that is a column, ignoring case if necessary.

    A numeric name is a column number, from 0, unless a column has that name.

    Raises:
      DataError: two columns have the name.
    """
    lower = [column.lower() for column in table.columns]
    for name in names:
        for columns, wanted in ((table.columns, name), (lower, name.lower())):
            if columns.count(wanted) > 1:
                places = [str(i) for i, column in enumerate(columns) if column == wanted]
                raise DataError(
                    f"{table.file}, line 1: the columns {' and '.join(places)} are both called "
                    f"{name!r}; rename one, or select the column by its number"
                )
            if wanted in columns:
                return columns.index(wanted)
        if name.isdecimal() and int(name) < len(table.columns):
            return int(name)
    return None


def no_column(table: Table, name: str, advice: str = "") -> str:
    """Returns a message on a missing column, with the existing ones and the closest."""
    nearest = difflib.get_close_matches(name.lower(), [c.lower() for c in table.columns], n=1)
    shown = [column[:_LONGEST_SHOWN] for column in table.columns]
    hint = next((c for c in table.columns if c.lower() in nearest), None)
    meant = f"; did you mean {hint!r}?" if hint else ""
    return f"{table.file} has the columns {shown} but no {name!r}{advice}{meant}"


def plain_text(value: Any) -> str | None:
    """Formats a field as in a text file; None for a list or an object.

    A lone surrogate, possible in JSON but not in UTF-8, becomes U+FFFD.

    Example:
      >>> [plain_text(value) for value in ("a", 3, 3.0, 0.5, True, None)]
      ['a', '3', '3', '0.5', 'true', '']
    """
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else repr(value) if value % 1 else str(int(value))
    if isinstance(value, bytes):  # some programs write text to Parquet as bytes
        return value.decode(errors="replace")
    return str(value) if isinstance(value, int) else None


def _numbered(file: pathlib.Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(file), start=1):
        yield f"{file}, line {number}", line


def _peek(rows: Iterator[Row], if_empty: str) -> tuple[Row, Iterator[Row]]:
    """Returns the first row that is not blank, and an iterator over all rows."""
    before = []
    for row in rows:
        before.append(row)
        if row[1]:
            return row, _chain(before, rows)
    raise DataError(if_empty)


def _chain(before: list[Row], rows: Iterator[Row]) -> Iterator[Row]:
    yield from before
    yield from rows


def _tsv_rows(file: pathlib.Path) -> Iterator[Row]:
    for where, line in _numbered(file):
        yield where, line.split("\t") if line else []


def _separator(file: pathlib.Path) -> str:
    """Returns the separator of a CSV file, from its first line outside quotes; comma by default."""
    line = next(read_lines(file), "")
    if declared := _DECLARED.fullmatch(line):
        return declared[1]
    return next((s for s in _SEPARATORS if s in re.sub('"[^"]*"', "", line)), ",")


def _csv_rows(file: pathlib.Path, separator: str) -> Iterator[Row]:
    lines, number = (line + "\n" for line in read_lines(file)), 1
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for fields in reader:
            if number == 1 and _DECLARED.fullmatch(separator.join(fields)):
                number = 2
                continue
            yield f"{file}, line {number}", fields
            number = reader.line_num + 1  # a quoted field may span lines
    except csv.Error as error:
        if "new-line" in str(error):
            raise DataError(
                f"{file}, line {number} holds a carriage return between texts; end lines with a "
                "line feed, as `tr '\\r' '\\n'` does"
            ) from None
        raise DataError(
            f"{file}, line {number}: the quotes do not match ({error}); a quoted field ends with a "
            "quote, and a quote inside it is written twice"
        ) from None


def _objects(file: pathlib.Path) -> Table:
    def objects() -> Iterator[tuple[str, dict]]:
        for where, line in _numbered(file):
            if line.startswith("["):
                raise DataError(
                    f"{where}: starts a JSON list, but one object per line is expected, as `jq -c "
                    "'.[]'` writes it"
                )
            try:
                value = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise DataError(
                    f"{where}: not JSON ({error}); expected one object per line"
                ) from None
            if not isinstance(value, dict):
                raise DataError(
                    f'{where}: expected an object, as in {{"text": ...}}, found {line[:40]!r}'
                )
            yield where, flatten(value)

    rows = list(objects())
    columns = tuple(dict.fromkeys(key for _, value in rows for key in value))
    if not columns:
        raise DataError(f"{file} is empty; expected one object per line")
    fields = ((where, [value.get(c) for c in columns] if value else []) for where, value in rows)
    return Table(file, "jsonl", columns, fields)


def _parquet(file: pathlib.Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(
            f"{file} needs pyarrow to be read: pip install pyarrow, or convert it to CSV"
        ) from None
    try:
        with OPENERS.get(file.suffix, open)(file, "rb") as opened:
            table = parquet.read_table(io.BytesIO(opened.read()))
    except (OSError, EOFError, ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from None
    if not table.num_rows:
        raise DataError(f"{file} is empty; it has columns but no rows")

    def rows() -> Iterator[Row]:
        number = 0
        for batch in table.to_batches():
            for fields in zip(*(column.to_pylist() for column in batch.columns)):
                number += 1
                yield f"{file}, row {number}", list(fields)

    return Table(file, "parquet", tuple(table.column_names), rows())
