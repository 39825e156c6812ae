"""Documents: their sources, the held-out share, and sentence splitting."""

import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

from sibert_jax.errors import DataError

Document: TypeAlias = list[str]  # its non-empty paragraphs, without line ends

# Sources split longer documents, so that a file without blank lines or even line ends needs little
# memory and has documents to hold out.
MAX_DOCUMENT_CHARS = 500_000
MIN_HELD_OUT = 2  # documents; next-sentence prediction draws from another document
MIN_PART_CHARS = 2_000  # of a document split for holding out: enough for a few examples
MAX_SENTENCE_CHARS = 1000
_HASHES = 2**64

# White space after closing punctuation (with its quotes or brackets) and before something that may
# start a sentence.
_BOUNDARY = re.compile(r"""[.!?…]["'”’»)\]]*(\s+)(?=["'“‘«(\[—-]*[A-Z0-9À-Þ])""")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|rev|gen|col|capt|lt|sgt|st|jr|sr|vs|etc|cf|no|vol|pp|fig|inc|ltd|co"
    r"|e\.g|i\.e|approx|dept|est|jan|feb|mar|apr|aug|sept?|oct|nov|dec|messrs|mme|mlle)|\b[a-z])\.$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8


@dataclasses.dataclass(frozen=True)
class Source:
    """A re-readable stream of documents, and the files whose hashes identify it.

    Args:
      key: the config key that names it, such as "data.path".
      name: its name in progress messages; short, however many files there are.
      files: the files it is read from.
      documents: returns an iterator from the beginning.
      parts: the full name of each file or split.
      options: everything else the documents depend on, such as split and feature.
      note: returns a remark for the user on how the text was read, or "".
    """

    key: str
    name: str
    files: tuple[pathlib.Path, ...]
    documents: Callable[[], Iterator[Document]]
    parts: tuple[str, ...]
    options: tuple[str, ...] = ()
    note: Callable[[], str] = lambda: ""


class HeldOutShare:
    """Splits the documents of sources into training and held-out documents.

    A hash of its text decides for each document. If there are fewer than 1/fraction documents, long
    ones are split into parts first, so that even a single novel can be split. At least two are held
    out. To determine this, the sources are read once, usually not far, on first use.

    Args:
      sources: all training text.
      fraction: the fraction to hold out, in [0, 1); 0: nothing.
    """

    def __init__(self, sources: Sequence[Source], fraction: float):
        self.fraction = fraction
        self._sources = sources

    def split(self, source: Source) -> Iterator[tuple[bool, Document]]:
        """Yields (is held out, document or part) for the documents of a source.

        Raises:
          DataError: if the text is too short to hold out documents.
        """
        if not self.fraction:
            yield from ((False, document) for document in source.documents())
            return
        threshold, part_chars = self._rule
        for document in source.documents():
            for part in document_parts(document, part_chars):
                yield text_hash(part) < threshold, part

    @property
    def splits_documents(self) -> bool:
        """Whether documents are split into parts."""
        return bool(self.fraction) and self._rule[1] < math.inf

    @cached_property
    def _rule(self) -> tuple[float, float]:
        """The hash below which a document is held out, and the characters per document part."""
        below = self.fraction * _HASHES
        hashes: list[int] = []
        num_chars = num_held_out = 0
        for document in self._documents():
            hashes.append(text_hash(document))
            num_chars += sum(map(len, document))
            num_held_out += hashes[-1] < below
            if len(hashes) * self.fraction >= 1 and num_held_out >= MIN_HELD_OUT:
                return below, math.inf
        num_documents, part_chars = len(hashes), math.inf
        if num_documents * self.fraction < 1:
            part_chars = max(MIN_PART_CHARS, self.fraction * num_chars / 2)
            hashes = [
                text_hash(p) for d in self._documents() for p in document_parts(d, part_chars)
            ]
        if len(hashes) <= MIN_HELD_OUT or self.fraction * num_chars < 1:
            raise DataError(
                f"data.valid_fraction={self.fraction:g} holds out none of the {num_documents} "
                f"documents ({num_chars:,} characters) that data.path names; raise it, or name "
                "more text, or held-out text in data.valid_path"
            )
        return max(below, sorted(hashes)[MIN_HELD_OUT - 1] + 1), part_chars

    def _documents(self) -> Iterator[Document]:
        return itertools.chain.from_iterable(source.documents() for source in self._sources)


def document_parts(document: Document, num_chars: float) -> list[Document]:
    """Splits a document into parts of about `num_chars` characters, none below half of that."""
    if sum(map(len, document)) <= num_chars:
        return [document]
    parts: list[Document] = [[]]
    size = 0
    for paragraph in document:
        for text in split_at_spaces(paragraph, math.ceil(num_chars)):
            if size >= num_chars:
                parts.append([])
                size = 0
            parts[-1].append(text)
            size += len(text)
    if len(parts) > 1 and size < num_chars / 2:
        last = parts.pop()
        parts[-1] += last
    return parts


def is_held_out(document: Document, fraction: float) -> bool:
    """Tells whether a document is held out, from its text alone."""
    return text_hash(document) < fraction * _HASHES


def text_hash(document: Document) -> int:
    """Returns a hash in [0, 2**64) of the text."""
    hashed = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big")


def split_sentences(paragraph: str) -> Iterator[str]:
    """Yields the sentences of a paragraph, none empty and none over 1,000 characters.

    Example:
      >>> list(split_sentences('Mr. Hill left. "Why?" he asked.'))
      ['Mr. Hill left.', '"Why?" he asked.']
    """
    start = 0
    for match in _BOUNDARY.finditer(paragraph):
        end = match.start(1)
        if _ABBREVIATION.search(paragraph[max(start, end - _LONGEST_ABBREVIATION) : end]):
            continue
        yield from split_at_spaces(paragraph[start:end], MAX_SENTENCE_CHARS)
        start = match.end(1)
    yield from split_at_spaces(paragraph[start:], MAX_SENTENCE_CHARS)


def split_at_spaces(text: str, max_chars: int) -> Iterator[str]:
    """Yields `text` in parts of at most `max_chars`, split at a space if there is one.

    Example:
      >>> list(split_at_spaces("ab cd efghijk", 5))
      ['ab cd', 'efghi', 'jk']
    """
    start = 0
    while len(text) - start > max_chars:
        space = text.rfind(" ", start + 1, start + max_chars + 1)
        end = space if space > 0 else start + max_chars
        yield text[start:end]
        start = end + (space > 0)
    if start < len(text):
        yield text[start:]


def shortened(names: Sequence[str], what: str) -> str:
    """Joins names into a short list.

    Example:
      >>> shortened(["a.txt", "b.txt"], "files")
      'a.txt, b.txt'
      >>> shortened([f"{i}.txt" for i in range(120)], "files")
      '120 files, 0.txt ...'
    """
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names):,} {what}, {names[0]} ..."
