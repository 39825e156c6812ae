"""What every kind of text comes as."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

Document: TypeAlias = list[str]  # its paragraphs, none empty, without line ends


@dataclasses.dataclass(frozen=True)
class Source:
    """A stream of documents that can be read again, and the files whose hashes identify it.

    Args:
      key: the key of the configuration that names it, such as "data.path".
      name: what to call it in progress lines; short, however many files there are.
      files: the files it is read from.
      documents: starts reading from the beginning.
      parts: what is read, each file or split under its full name.
      options: what else decides which documents come out, such as the split and the feature.
      note: what a reader of the text should know of how it was read, "" if nothing.
    """

    key: str
    name: str
    files: tuple[pathlib.Path, ...]
    documents: Callable[[], Iterator[Document]]
    parts: tuple[str, ...]
    options: tuple[str, ...] = ()
    note: Callable[[], str] = lambda: ""


def shortened(names: Sequence[str], what: str) -> str:
    """A list of names that stays short.

    Example:
      >>> shortened(["a.txt", "b.txt"], "files")
      'a.txt, b.txt'
      >>> shortened([f"{i}.txt" for i in range(120)], "files")
      '120 files, 0.txt ...'
    """
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names):,} {what}, {names[0]} ..."
