"""Wrapped lines are told from paragraphs, sentences and verse, and joined again."""

import random
import textwrap

import pytest

from sibert_jax.data import text_files as layout
from sibert_jax.data.text_files import is_wrapped, joined_paragraphs

TEXT = """the a house of stone where nobody had lived since autumn and its windows looked over
fields that went down to river boats passed slowly under bridges with grain for mills she asked
him whether he remembered what they said about light on water or only wind in reeds"""
WORDS = TEXT.split()


def sentences(count, seed=0):
    rng = random.Random(seed)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(count)]
    return [f"{text[0].upper()}{text[1:]}." for text in made]


def paragraphs(count, seed=0):
    """Long ones, and short ones of dialogue."""
    rng = random.Random(seed)
    return [" ".join(sentences(rng.choice((1, 2, 6)), seed=i)) for i in range(count)]


def between(blocks, separator):
    """The lines of blocks with further lines between them."""
    return [line for block in blocks for line in [*block, *separator]]


def wrapped(width, **options):
    return [textwrap.wrap(text, width, **options) for text in paragraphs(60)]


def verse(count):
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(6, 9))) for _ in range(count)]
    return [f"{line.capitalize()}," for line in lines]


EQUAL = "Every line of this one ends with its full stop at the same place."
LAYOUTS = {
    "72 wide, blank lines": (between(wrapped(72), [""]), True),
    "40 wide": (between(wrapped(40), [""]), True),
    "120 wide": (between(wrapped(120), [""]), True),
    "double blank lines": (between(wrapped(72), ["", ""]), True),
    "indented first lines, no blank": (between(wrapped(72, initial_indent="   "), []), True),
    "indented block": (between(wrapped(72, initial_indent="  ", subsequent_indent="  "), [""]),
                       True),
    "one paragraph": (max(wrapped(60), key=len), True),
    "Hebrew": (textwrap.wrap("".join(chr(0x5D0 + i % 27) + " " * (i % 5 == 4)
                                     for i in range(3000)), 70), True),
    "paragraph a line": (between([[p] for p in paragraphs(60)], []), False),
    "paragraph a line, blank between": (between([[p] for p in paragraphs(60)], [""]), False),
    "sentence a line": (between([sentences(9, i) for i in range(30)], [""]), False),
    "sentence a line, lower case": ([s.lower() for s in sentences(300)], False),
    "sentences of one length": (between([[EQUAL] * 5] * 20, [""]), False),
    "verse": (between([verse(300)[i:i + 4] for i in range(0, 300, 4)], [""]), False),
    "verse without blank lines": (verse(300), False),
    "word a line": (WORDS * 10, False),
    "numbers": ([f"{i:8d} {i * i:20d} {i ** 3:30d}" for i in range(99)], False),
    "one line": ([" ".join(sentences(500))], False),
    "nothing": ([], False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_only_wrapped_lines_are_taken_for_wrapped(name):
    lines, expected = LAYOUTS[name]
    assert is_wrapped(lines) == expected


def test_a_text_is_judged_by_its_start(monkeypatch):
    monkeypatch.setattr(layout, "SAMPLE_CHARS", 10_000)

    def lines():
        yield from between(wrapped(72), [""])
        raise AssertionError("read to the end")

    assert is_wrapped(lines())


@pytest.mark.parametrize("width", [30, 72, 100])
def test_what_was_wrapped_is_joined_to_what_it_was(width):
    original = [*paragraphs(40), "A well-known twenty-two-year-old - so he said - came again."]
    lines = between([textwrap.wrap(text, width) for text in original], [""])
    assert list(joined_paragraphs(lines)) == original
    long = [text for text in original if len(text) > width]
    indented = [textwrap.wrap(text, width, initial_indent="  ") for text in long]
    assert list(joined_paragraphs(between(indented, []))) == long


@pytest.mark.parametrize("num_blank", [2, 3, 5])
def test_documents_end_at_two_or_more_blank_lines(num_blank):
    blanks = [""] * num_blank
    chapters = [
        [*blanks, "CHAPTER I", *blanks, "The first", "one.", "", "It is", "short."],
        [*blanks, "CHAPTER II", "", "The", "second."],
    ]
    lines = [line for chapter in chapters for line in chapter]
    assert list(joined_paragraphs(lines)) == [
        *("CHAPTER I", "The first one.", "It is short.", ""),
        *("CHAPTER II", "The second."),
    ]


def test_a_text_without_blank_lines_is_joined_in_parts(monkeypatch):
    monkeypatch.setattr(layout, "MAX_PARAGRAPH_CHARS", 100)
    joined = list(joined_paragraphs(textwrap.wrap(" ".join(sentences(50)), 40)))
    assert all(len(paragraph) <= 141 for paragraph in joined)
    assert " ".join(joined) == " ".join(sentences(50))
