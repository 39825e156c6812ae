"""Plain, gzip and xz text files as documents, a list of paragraphs each."""

import functools
import glob
import gzip
import lzma
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator

from sibert_jax.data.layout import is_wrapped, joined_paragraphs, line_paragraphs
from sibert_jax.data.source import Document, Source, shortened
from sibert_jax.errors import DataError, named_by

# A document longer than this is cut in two, so that a file without blank lines or even without
# line ends needs little memory and has something to hold out.
MAX_DOCUMENT_CHARS = 500_000
OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def text_source(patterns: tuple[str, ...], key: str, layout: str) -> Source:
    """Returns the documents of all files that match any of the patterns, in sorted order.

    Args:
      patterns: files or globs.
      key: of the configuration that names them, such as "data.path".
      layout: what a line is, one of `layout.LAYOUTS`; "auto" judges each file by its start.

    Raises:
      DataError: if a pattern matches no file. Reading raises it for a file that is empty, binary,
        not UTF-8, truncated or cannot be read.
    """
    with named_by(key):
        files = tuple(path for pattern in patterns for path in matching_files(pattern))

    @functools.cache
    def is_wrapped_file(path: pathlib.Path) -> bool:
        return layout == "wrapped" or (layout == "auto" and is_wrapped(read_lines(path)))

    def documents() -> Iterator[Document]:
        with named_by(key):
            for path in files:
                yield from read_documents(path, wrapped=is_wrapped_file(path))

    def note() -> str:
        wrapped = [str(path) for path in files if is_wrapped_file(path)]
        if layout != "auto" or not wrapped:
            return ""
        return (
            f"wrapped lines in {shortened(wrapped, 'files')}: joined into paragraphs at blank "
            "lines, into documents at two or more; data.layout=paragraphs takes each line as one"
        )

    return Source(
        key=key,
        name=shortened([str(path) for path in files], "files"),
        files=files,
        documents=documents,
        parts=tuple(str(path.resolve()) for path in files),
        options=(layout,),
        note=note,
    )


def read_documents(path: pathlib.Path, *, wrapped: bool = False) -> Iterator[Document]:
    """Yields the documents of one file, each the list of its paragraphs.

    Args:
      path: the file.
      wrapped: whether paragraphs are wrapped over several lines (`layout.joined_paragraphs`) or
        have a line each, with a blank line between documents.
    """
    paragraphs: Callable = joined_paragraphs if wrapped else line_paragraphs
    document: Document = []
    size = 0
    empty = True
    for paragraph in paragraphs(read_lines(path)):
        if not paragraph and document:
            yield document
            document, size = [], 0
        for piece in cut_at_spaces(paragraph, MAX_DOCUMENT_CHARS):
            empty = False
            document.append(piece)
            size += len(piece)
            if size >= MAX_DOCUMENT_CHARS:
                yield document
                document, size = [], 0
    if document:
        yield document
    if empty:
        raise DataError(f"{path} holds no text; leave it out, or name another file")


def read_lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of one file without their line ends."""
    offset = 0
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if b"\0" in line:
                    raise DataError(
                        f"{path} is not text: line {number} holds a zero byte "
                        "(a binary file, or UTF-16; UTF-8 is wanted)"
                    )
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                offset += len(line)
                yield text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: line {number}, byte {offset + error.start} is "
            f"0x{error.object[error.start]:02x} ({error.reason}); convert it with iconv"
        ) from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is a truncated or damaged {path.suffix} file after {offset:,} bytes of "
            f"text ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; name a file that can be read"
        ) from error


def cut_at_spaces(text: str, max_chars: int) -> Iterator[str]:
    """Yields `text` in pieces of at most `max_chars`, cut at a space where there is one."""
    start = 0
    while len(text) - start > max_chars:
        space = text.rfind(" ", start + 1, start + max_chars + 1)
        end = space if space > 0 else start + max_chars
        yield text[start:end]
        start = end + (space > 0)
    if start < len(text):
        yield text[start:]


def matching_files(pattern: str) -> list[pathlib.Path]:
    """The files that a name or a glob stands for, at least one, in sorted order."""
    expanded = os.path.expanduser(pattern)
    # A file may have a name that reads as a glob.
    names = [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
    paths = [pathlib.Path(name) for name in names]
    if not paths:
        what = "no file matches the glob" if glob.has_magic(expanded) else "no such file:"
        where = "" if os.path.isabs(expanded) else f" in {os.getcwd()}"
        raise DataError(f"{what} {pattern!r}{where}; name files that are there")
    files = [path for path in paths if not path.is_dir()]
    if not files:
        raise DataError(
            f"{pattern!r} is a directory; name its files, as in '{pattern.rstrip('/')}/*.txt'"
        )
    return files
