"""Which part of a text is held out where no other text is named for evaluation."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

from sibert_jax.data.source import Document, Source
from sibert_jax.data.text_files import cut_at_spaces
from sibert_jax.errors import DataError

MIN_HELD_OUT = 2  # documents: next-sentence prediction draws from another one
MIN_PIECE_CHARS = 2_000  # of a document that is cut: some examples
_HASHES = 2**64


class HeldOutShare:
    """Parts the documents of sources into those to train on and those to evaluate on.

    A hash of its text decides for each document. Where there are fewer than 1/fraction, long ones
    are cut into pieces first, so that a single novel has something to hold out as well. At least
    two are held out. The sources are read once for that, mostly not far, when it is first needed.

    Args:
      sources: all of the training text.
      fraction: the share to hold out, in [0, 1); 0: nothing.
    """

    def __init__(self, sources: Sequence[Source], fraction: float):
        self.fraction = fraction
        self._sources = sources

    def split(self, source: Source) -> Iterator[tuple[bool, Document]]:
        """Yields the documents of a source, or their pieces, each with whether it is held out.

        Raises:
          DataError: if the text is too short to hold any out.
        """
        if not self.fraction:
            yield from ((False, document) for document in source.documents())
            return
        threshold, piece_chars = self._rule
        for document in source.documents():
            for piece in cut(document, piece_chars):
                yield text_hash(piece) < threshold, piece

    @property
    def is_of_pieces(self) -> bool:
        """Whether documents are cut into pieces."""
        return bool(self.fraction) and self._rule[1] < math.inf

    @cached_property
    def _rule(self) -> tuple[float, float]:
        """The hash below which a document is held out, and the characters of a piece of one."""
        below = self.fraction * _HASHES
        hashes: list[int] = []
        num_chars = num_held_out = 0
        for document in self._documents():
            hashes.append(text_hash(document))
            num_chars += sum(map(len, document))
            num_held_out += hashes[-1] < below
            if len(hashes) * self.fraction >= 1 and num_held_out >= MIN_HELD_OUT:
                return below, math.inf
        num_documents, piece_chars = len(hashes), math.inf
        if num_documents * self.fraction < 1:
            piece_chars = max(MIN_PIECE_CHARS, self.fraction * num_chars / 2)
            hashes = [text_hash(p) for d in self._documents() for p in cut(d, piece_chars)]
        if len(hashes) <= MIN_HELD_OUT or self.fraction * num_chars < 1:
            raise DataError(
                f"data.valid_fraction={self.fraction:g} holds out none of the {num_documents} "
                f"documents ({num_chars:,} characters) that data.path names; raise it, or name "
                "more text, or held-out text in data.valid_path"
            )
        return max(below, sorted(hashes)[MIN_HELD_OUT - 1] + 1), piece_chars

    def _documents(self) -> Iterator[Document]:
        return itertools.chain.from_iterable(source.documents() for source in self._sources)


def cut(document: Document, num_chars: float) -> list[Document]:
    """A document in pieces of about `num_chars` characters, none shorter than half of that."""
    if sum(map(len, document)) <= num_chars:
        return [document]
    pieces: list[Document] = [[]]
    size = 0
    for paragraph in document:
        for part in cut_at_spaces(paragraph, math.ceil(num_chars)):
            if size >= num_chars:
                pieces.append([])
                size = 0
            pieces[-1].append(part)
            size += len(part)
    if len(pieces) > 1 and size < num_chars / 2:
        last = pieces.pop()
        pieces[-1] += last
    return pieces


def is_held_out(document: Document, fraction: float) -> bool:
    """Whether a document is for evaluation, decided by its text alone."""
    return text_hash(document) < fraction * _HASHES


def text_hash(document: Document) -> int:
    """A number in [0, 2**64) that depends on the text alone."""
    hashed = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big")
