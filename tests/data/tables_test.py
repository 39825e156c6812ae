"""Files of rows: every format, plain and compressed."""

import gzip
import json
import lzma
import sys

import pytest

from sibert_jax.data import DataError
from sibert_jax.data.tables import plain_text, read_table

TYPED = [[1, 'a, "b"', 0.5], [2, "c", 3.0], [3, "ü", None]]


def parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(("n", "text", "x"), map(list, zip(*TYPED))))
    parquet.write_table(pyarrow.table(columns), path)


def csv_file(path):
    path.write_text('n,text,x\n1,"a, ""b""",0.5\n2,c,3\n3,ü,\n', encoding="utf-8")


def tsv(path):
    path.write_bytes('n\ttext\tx\r\n1\ta, "b"\t0.5\r\n2\tc\t3\r\n3\tü\t'.encode())


def json_objects(path):
    objects = [dict(zip(("n", "text", "x"), row)) for row in TYPED]
    path.write_text("".join(json.dumps(row) + "\n" for row in objects))


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
@pytest.mark.parametrize(
    ("name", "write"),
    [("a.parquet", parquet), ("a.csv", csv_file), ("a.tsv", tsv), ("a.jsonl", json_objects)],
)
def test_every_format_reads_as_the_same_rows(tmp_path, name, write, ending):
    write(tmp_path / name)
    path = tmp_path / f"{name}{ending}"
    opened = {"": open, ".gz": gzip.open, ".xz": lzma.open}[ending]
    content = (tmp_path / name).read_bytes()
    with opened(path, "wb") as file:
        file.write(content)
    table = read_table(path)
    assert table.columns == ("n", "text", "x")
    rows = [[plain_text(field) for field in row] for _, row in table.rows]
    assert rows == [["1", 'a, "b"', "0.5"], ["2", "c", "3"], ["3", "ü", ""]]


def test_bytes_of_parquet_are_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["ü".encode()]}), tmp_path / "a.parquet")
    ((_, (value,)),) = read_table(tmp_path / "a.parquet").rows
    assert plain_text(value) == "ü"


def test_a_lone_surrogate_of_json_becomes_a_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83d"}\n')
    ((_, (value,)),) = read_table(tmp_path / "a.jsonl").rows
    assert plain_text(value) == "a\ufffd"


def test_parquet_without_pyarrow_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"a.parquet needs pyarrow to be read: pip install pyarrow"):
        read_table(tmp_path / "a.parquet")
