"""Reads documents from plain, gzip and xz text files, detecting wrapped lines."""

import functools
import glob
import gzip
import itertools
import lzma
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator

from sibert_jax.data.documents import (
    MAX_DOCUMENT_CHARS,
    Document,
    Source,
    shortened,
    split_at_spaces,
)
from sibert_jax.errors import DataError, named_by

LAYOUTS = ("auto", "paragraphs", "wrapped")
OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def text_source(patterns: tuple[str, ...], key: str, layout: str) -> Source:
    """Returns the documents of all files that match any of the patterns, in sorted order.

    Args:
      patterns: files or globs.
      key: the config key that names them, such as "data.path".
      layout: how lines are read, one of `LAYOUTS`; "auto" decides per file from its beginning.

    Raises:
      DataError: if a pattern matches no file. Reading raises it for a file that is empty, binary,
        not UTF-8, truncated or unreadable.
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
            f"lines in {shortened(wrapped, 'files')} are wrapped: a blank line ends a paragraph, "
            "two or more end a document; data.layout=paragraphs takes each line as a paragraph"
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
    """Yields the documents of one file, each as a list of paragraphs.

    Args:
      path: the file.
      wrapped: whether paragraphs are wrapped over several lines (`joined_paragraphs`) or have one
        line each, with a blank line between documents.
    """
    paragraphs: Callable = joined_paragraphs if wrapped else line_paragraphs
    document: Document = []
    size = 0
    empty = True
    for paragraph in paragraphs(read_lines(path)):
        if not paragraph and document:
            yield document
            document, size = [], 0
        for part in split_at_spaces(paragraph, MAX_DOCUMENT_CHARS):
            empty = False
            document.append(part)
            size += len(part)
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
                        f"{path} is not text: line {number} holds a zero byte (a binary file, or "
                        "UTF-16, which iconv -f UTF-16 -t UTF-8 converts)"
                    )
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                offset += len(line)
                yield text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: line {number}, byte {offset + error.start} is "
            f"0x{error.object[error.start]:02x} ({error.reason}); convert it with "
            "iconv, as in iconv -f WINDOWS-1252 -t UTF-8"
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


def matching_files(pattern: str) -> list[pathlib.Path]:
    """Returns the files that a name or a glob matches, at least one, sorted."""
    expanded = os.path.expanduser(pattern)
    # A file name may look like a glob.
    names = [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
    paths = [pathlib.Path(name) for name in names]
    if not paths:
        what = "no file matches the glob" if glob.has_magic(expanded) else "no such file:"
        where = "" if os.path.isabs(expanded) else f" in {os.getcwd()}"
        raise DataError(f"{what} {pattern!r}{where}; name existing files")
    files = [path for path in paths if not path.is_dir()]
    if not files:
        raise DataError(
            f"{pattern!r} is a directory; name its files, as in '{pattern.rstrip('/')}/*.txt'"
        )
    return files


SAMPLE_CHARS = 1_000_000  # at the start of a file, used by "auto"
MAX_PARAGRAPH_CHARS = 500_000

# Share of `full` lines: 0.8 to 1 in wrapped novels, up to 0.2 in verse, 0.05 with a paragraph or
# sentence per line. Share of `continued` lines: 0.8 to 0.95 in wrapped prose, otherwise 0 to 0.15.
MIN_PAIRS = 4
MIN_WIDTH = 30
MIN_FULL = 0.6
MIN_CONTINUED = 0.3
MAX_ENDED = 0.5
LONGEST_WORD = 15
_CLOSING = "\"'”’»)]"
_SENTENCE_ENDS = tuple(".!?…。！？")


def is_wrapped(lines: Iterable[str]) -> bool:
    """Tells whether lines are wrapped at a fixed width, as in Project Gutenberg files.

    In wrapped text, the next word would not have fit on the line, few lines end a sentence, and
    many lines start in lower case. The first million characters must have all three properties, so
    that verse and text with one sentence or paragraph per line do not count as wrapped.

    Args:
      lines: the lines, without line ends.

    Example:
      >>> import textwrap
      >>> sentence = "A line of a wrapped text ends where the next word would not have fit. "
      >>> is_wrapped(textwrap.wrap(sentence * 3, width=40))
      True
      >>> is_wrapped([sentence] * 9)
      False
    """
    pairs = list(_adjacent_lines(lines))
    if len(pairs) < MIN_PAIRS:
        return False
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[int(0.95 * (len(lengths) - 1))]  # a few lines exceed any width
    full = sum(
        len(line) + 1 + min(len(following.split(None, 1)[0]), LONGEST_WORD) > width
        for line, following in pairs
    )
    continued = sum(_is_continuation(following) for _, following in pairs)
    ended = sum(line.rstrip(_CLOSING).endswith(_SENTENCE_ENDS) for line, _ in pairs)
    return (
        width >= MIN_WIDTH
        and full >= MIN_FULL * len(pairs)
        and continued >= MIN_CONTINUED * len(pairs)
        and ended <= MAX_ENDED * len(pairs)
    )


def _adjacent_lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields pairs of adjacent lines in the sample that would share a paragraph if wrapped."""
    num_chars = 0
    for line, following in itertools.pairwise(map(str.rstrip, lines)):
        if line and following and not _begins_paragraph(line, following):
            yield line, following
        num_chars += len(line) + 1
        if num_chars >= SAMPLE_CHARS:
            return


def _is_continuation(line: str) -> bool:
    first = line.lstrip()[0]
    return first.isalpha() and not first.isupper()


def _begins_paragraph(line: str, following: str) -> bool:
    """Tells whether a line is indented and the previous one is not."""
    return following[0].isspace() and not line[0].isspace()


def line_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yields each line as a paragraph, and "" (a blank line) where a document ends."""
    return map(str.strip, lines)


def joined_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yields the paragraphs of a wrapped text, and "" where a document ends.

    A paragraph ends at a blank line or before an indented one, a document at two or more blank
    lines. Titles (paragraphs of one line) stay with the text that follows.

    Example:
      >>> list(joined_paragraphs(["A TITLE", "", "", "Not", "long.", "", "", "Two.", "", "Three."]))
      ['A TITLE', 'Not long.', '', 'Two.', 'Three.']
    """
    paragraph, before = "", ""
    num_blank, has_text = 0, False
    for line in map(str.rstrip, lines):
        ends = not line or (before and _begins_paragraph(before, line))
        if paragraph and (ends or len(paragraph) >= MAX_PARAGRAPH_CHARS):
            yield paragraph
            paragraph = ""
        num_blank = 0 if line else num_blank + 1
        if num_blank == 2 and has_text:
            yield ""
            has_text = False
        if line:
            has_text = has_text or bool(paragraph)
            # A line may break after the hyphen of a word or a dash, but not after a dash between
            # spaces.
            glued = paragraph.endswith("-") and not paragraph.endswith(" -")
            paragraph += line.strip() if glued or not paragraph else f" {line.strip()}"
        before = line
    if paragraph:
        yield paragraph
