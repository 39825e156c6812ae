import gzip
import lzma

import pytest

from sibert_jax.data import DataError, text_files
from sibert_jax.data.documents import split_at_spaces
from sibert_jax.data.text_files import read_documents, text_source

TEXT = "One.\nTwo, naïve.\n\n\nThree.\r\n  \nFour.\n"
DOCUMENTS = [["One.", "Two, naïve."], ["Three."], ["Four."]]


def source_of(patterns, layout="auto"):
    return text_source(patterns, "data.path", layout)


@pytest.mark.parametrize(
    ("name", "encode"),
    [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress), ("a", bytes)],
)
def test_blank_lines_part_documents_in_every_kind_of_file(tmp_path, name, encode):
    (tmp_path / name).write_bytes(encode(TEXT.encode()))
    assert list(read_documents(tmp_path / name)) == DOCUMENTS


def test_a_byte_order_mark_is_not_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert list(read_documents(tmp_path / "a.txt")) == DOCUMENTS


def test_a_glob_is_one_corpus_of_its_files_in_order(tmp_path):
    for name in ("b2", "b10", "a"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    source = source_of((str(tmp_path / "b*.txt"), str(tmp_path / "a.txt")))
    assert list(source.documents()) == [["b10"], ["b2"], ["a"]]
    assert list(source.documents()) == [["b10"], ["b2"], ["a"]]  # reads again
    assert [path.name for path in source.files] == ["b10.txt", "b2.txt", "a.txt"]


def test_a_file_named_like_a_glob_is_read(tmp_path):
    (tmp_path / "[a].txt").write_text("x\n")
    assert list(source_of((str(tmp_path / "[a].txt"),)).documents()) == [["x"]]


def test_text_without_blank_lines_or_line_ends_is_cut_into_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_CHARS", 10)
    (tmp_path / "a.txt").write_text("aaaa bbbb cccc dddd\ne\nffff")
    assert list(read_documents(tmp_path / "a.txt")) == [["aaaa bbbb", "cccc dddd"], ["e", "ffff"]]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("ab cd ef", ["ab cd", "ef"]), ("abcdefg", ["abcde", "fg"]), ("abcde", ["abcde"]), ("", [])],
)
def test_long_text_is_cut_at_a_space_where_there_is_one(text, pieces):
    assert list(split_at_spaces(text, 5)) == pieces


def read(path):
    return list(read_documents(path))


@pytest.mark.parametrize("text", [b"", b"\n \n\t\n"])
def test_a_file_without_text_is_named(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"a\.txt holds no text; leave it out"):
        read(path)


def test_a_binary_file_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\x7fELF\x02\x00\x01")
    with pytest.raises(DataError, match=r"a\.txt is not text: line 2 holds a zero byte"):
        read(path)


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
def test_a_byte_that_is_not_utf8_is_located(tmp_path, encode):
    path = tmp_path / ("a.txt" if encode is bytes else "a.txt.gz")
    path.write_bytes(encode("naïve\n".encode() + "naïve\n".encode("latin-1")))
    with pytest.raises(DataError, match=r"a\.txt.* is not UTF-8: line 2, byte 9 is 0xef .*iconv"):
        read(path)


@pytest.mark.parametrize(("suffix", "encode"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("damage", ["truncated", "not compressed", "bytes changed"])
def test_a_damaged_archive_is_named(tmp_path, suffix, encode, damage):
    whole = encode(("\n".join(map(str, range(5000)))).encode())
    middle = len(whole) // 2
    content = {
        "truncated": whole[:middle],
        "not compressed": b"plain text",
        "bytes changed": whole[:middle] + b"\xff" * 40 + whole[middle + 40 :],
    }[damage]
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt\{suffix} is a truncated or damaged \{suffix}"):
        read(path)


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file: '.*/absent\.txt'"):
        source_of((str(tmp_path / "absent.txt"),))
    with pytest.raises(DataError, match=r"no file matches the glob '.*/\*\.txt'"):
        source_of((str(tmp_path / "*.txt"),))
    with pytest.raises(DataError, match=r"is a directory; name its files"):
        source_of((str(tmp_path),))
