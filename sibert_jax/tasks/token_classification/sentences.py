"""Reads sentences of tagged words: CoNLL columns, JSON lines, and plain text to tag."""

import dataclasses
import difflib
import pathlib
from collections.abc import Iterator, Sequence

from sibert_jax.data import DataError
from sibert_jax.data.tables import (
    find_column,
    format_of,
    no_column,
    one_file,
    plain_text,
    read_table,
)
from sibert_jax.data.text_files import OPENERS, read_lines
from sibert_jax.tasks.finetuning import listed

DOCUMENT = "-DOCSTART-"  # the word of a line between documents
MANY = 500  # more distinct tags than this mean a wrong column


@dataclasses.dataclass(frozen=True, eq=False)
class TaggedSentences:
    """N sentences in the order of their file.

    Args:
      name: name in messages and prediction files.
      places: file and line of each sentence.
      words: the words of each sentence.
      tags: the tags of each sentence, one per word; None if the file has none.
      report: a line on the sentences that were left out, if any.
    """

    name: str
    places: list[str]
    words: list[list[str]]
    tags: list[list[str]] | None
    report: tuple[str, ...] = ()


def read_sentences(
    path: str, *, token: str = "", tag: str = "", tagged: bool = True, strict: bool = False
) -> TaggedSentences:
    """Reads a file of sentences.

    Args:
      path: JSON lines, judging by its name; otherwise one word per line, with columns separated by
        tabs or other white space, and a blank line after each sentence. Lines of "-DOCSTART-" are
        skipped, as are comments before a sentence: "# ..." with a different number of columns.
      token: the column of the words, counted from 0, or the key of their list; "": 0 or "tokens".
      tag: the column or key of the tags; "": the last column or "tags".
      tagged: whether to read tags.
      strict: whether to raise at a sentence with an untagged word, instead of leaving it out.

    Raises:
      DataError: the file cannot be read or has no sentences; the message names file and line.
    """
    file = one_file(path)
    if format_of(file) == "jsonl":
        found = _from_json(file, token or "tokens", (tag or "tags") if tagged else "")
    else:
        found = _from_columns(file, token or "0", (tag or "-1") if tagged else "")
    places, words, tags, left_out = [], [], [], []
    for where, own_words, own_tags, reason in found:
        if reason and strict:
            raise DataError(f"{reason}; task.strict=False skips such sentences")
        if reason:
            left_out.append(reason)
            continue
        places.append(where)
        words.append(own_words)
        tags.append(own_tags)
    if not places:
        raise DataError(left_out[0] if left_out else f"{file} is empty; expected sentences")
    first = f"{len(left_out):,} sentences skipped, the first: {(*left_out, '')[0]}"
    report = (first,) if left_out else ()
    return TaggedSentences(_set_name(file), places, words, tags if tagged else None, report)


def read_new_sentences(path: str, *, token: str = "") -> TaggedSentences:
    """Reads sentences to tag, in the format of `read_sentences` or one per line of a `.txt` file.

    In a `.txt` file, words are separated by white space; a blank line is a sentence without words.
    """
    file = one_file(path)
    plain = [suffix for suffix in file.suffixes if suffix not in OPENERS]
    if plain[-1:] != [".txt"]:
        return read_sentences(path, token=token, tagged=False)
    lines = list(read_lines(file))
    if not lines:
        raise DataError(f"{file} is empty; expected one sentence per line")
    return dataclasses.replace(untagged(lines), name=_set_name(file))


def untagged(texts: Sequence[str] | Sequence[Sequence[str]]) -> TaggedSentences:
    """Returns sentences from texts, split at white space, or from lists of words."""
    words = [text.split() if isinstance(text, str) else list(text) for text in texts]
    if not words:
        raise DataError("there is no sentence to tag; give at least one")
    return TaggedSentences("new", [f"text {i}" for i in range(len(words))], words, None)


Found = Iterator[tuple[str, list[str], list[str], str]]  # place, words, tags, reason to skip


def _from_columns(file: pathlib.Path, token: str, tag: str) -> Found:
    for name, value in (("token", token), ("tag", tag or "0")):
        if not value.removeprefix("-").isdecimal():
            raise DataError(
                f"data.{name}={value!r} must be a column number of {file}: from 0, or from -1 to "
                "count back from the last column"
            )
    where, words, tags, reason, width, has_tabs = "", [], [], "", 0, False
    for number, line in enumerate(read_lines(file), start=1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or fields[0] == DOCUMENT:
            if words:
                yield where, words, tags, reason
            words, tags, reason = [], [], ""
            continue
        is_other = len(fields) != width or (has_tabs and "\t" not in line)
        if line.startswith("# ") and not words and is_other:
            continue
        has_tabs = has_tabs or "\t" in line
        here, width = f"{file}, line {number}", width or len(fields)
        where = where if words else here
        if tag and width < 2:
            raise DataError(f"{here} has one column; expected a word and its tag")
        for name, value in (("token", token), ("tag", tag or token)):
            if not -width <= int(value) < width:
                raise DataError(f"{here} has {width} columns but no {value}; change data.{name}")
        if len(fields) != width:
            reason = reason or f"{here} has {len(fields)} columns, expected {width}"
            fields = [*fields, *[""] * width][:width]
        words.append(fields[int(token)])
        tags.append(fields[int(tag or token)])
    if words:
        yield where, words, tags, reason


def _from_json(file: pathlib.Path, token: str, tag: str) -> Found:
    table = read_table(file, "jsonl")
    columns = []
    for name in filter(None, (token, tag)):
        columns.append(find_column(table, (name,)))
        if columns[-1] is None:
            raise DataError(no_column(table, name, "; name the lists in data.token and data.tag"))
    for where, row in table.rows:
        if not row and tag:
            continue
        lists = [row[i] for i in columns] if row else [[]]
        if not all(isinstance(values, list) for values in lists):
            yield where, [], [], f"{where}: {token!r} and {tag!r} must be lists"
            continue
        texts = [[plain_text(value) or "" for value in values] for values in lists]
        lengths = [len(values) for values in lists]
        reason = ""
        if len(set(lengths)) > 1:
            reason = f"{where} has {lengths[0]} words and {lengths[1]} tags"
        elif tag and not (lengths[0] and all(texts[1])):
            reason = f"{where} has a word without a tag, or no word"
        yield where, texts[0], texts[-1], reason


def found_tags(sentences: TaggedSentences) -> tuple[str, ...]:
    """Returns all tags, "O" first; raises DataError if there is only one, or too many."""
    tags = sorted({tag for sentence in sentences.tags for tag in sentence})
    if len(tags) == 1:
        raise DataError(
            f"{sentences.places[0]}: all words have the tag {tags[0]!r}; at least two tags are "
            "needed"
        )
    if len(tags) > MANY:
        raise DataError(
            f"{sentences.places[0]}: the words have {len(tags):,} different tags, such as "
            f"{sentences.tags[0][0][:40]!r}; name the column of the tags in data.tag"
        )
    return tuple(sorted(tags, key=lambda tag: tag != "O"))


def tag_numbers(sentences: TaggedSentences, labels: tuple[str, ...], known: str) -> list[list[int]]:
    """Returns the index of each tag in `labels`, those of the set `known`."""
    number = {label: i for i, label in enumerate(labels)}
    for where, tags in zip(sentences.places, sentences.tags):
        for tag in tags:
            if tag not in number:
                nearest = difflib.get_close_matches(tag, labels, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise DataError(
                    f"{where}: unknown tag {tag!r} in the sentence; the tags of {known} are "
                    f"{listed(labels)}{hint}"
                )
    return [[number[tag] for tag in tags] for tags in sentences.tags]


def _set_name(file: pathlib.Path) -> str:
    return f"{file.resolve().parent.name}_{file.name.split('.')[0]}"
