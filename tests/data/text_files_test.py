"""Files as documents, parts and sentences; wrapped lines are recognized and joined again."""

import gzip
import lzma
import math
import random
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sibert_jax.data import text_files
from sibert_jax.data.documents import document_parts, split_sentences
from sibert_jax.data.text_files import is_wrapped, joined_paragraphs, read_documents, text_source

TEXT = "\ufeffOne.\nTwo, naïve.\n\n\nThree.\r\n  \nFour.\n"  # with a byte-order mark


@pytest.mark.parametrize(
    ("name", "encode"),
    [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress), ("a", bytes)],
)
def test_blank_lines_separate_documents_in_every_kind_of_file(tmp_path, name, encode):
    (tmp_path / name).write_bytes(encode(TEXT.encode()))
    assert list(read_documents(tmp_path / name)) == [["One.", "Two, naïve."], ["Three."], ["Four."]]


def test_a_glob_is_one_corpus_of_its_files_in_order(tmp_path):
    for name in ("b2", "b10", "[a]"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    patterns = (str(tmp_path / "b*.txt"), str(tmp_path / "[a].txt"))  # a name like a glob
    source = text_source(patterns, "data.path", "auto")
    for _ in range(2):
        assert list(source.documents()) == [["b10"], ["b2"], ["[a]"]]
    assert [path.name for path in source.files] == ["b10.txt", "b2.txt", "[a].txt"]


def test_text_without_blank_lines_is_split_into_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_CHARS", 10)
    (tmp_path / "a.txt").write_text("aaaa bbbb cccc dddd\ne\nffff")
    assert list(read_documents(tmp_path / "a.txt")) == [["aaaa bbbb", "cccc dddd"], ["e", "ffff"]]


TEXT_WORDS = """the a house of stone where nobody had lived since autumn and its windows looked over
fields that went down to river boats passed slowly under bridges with grain for mills she asked
him whether he remembered what they said about light on water or only wind in reeds"""
WORDS = TEXT_WORDS.split()


def sentences(count, seed=0):
    rng = random.Random(seed)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(count)]
    return [f"{text[0].upper()}{text[1:]}." for text in made]


def paragraphs(count):
    """Long ones, and short ones of dialogue."""
    rng = random.Random(0)
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


HEBREW = "".join(chr(0x5D0 + i % 27) + " " * (i % 5 == 4) for i in range(3000))
EQUAL = "Every line of this one ends with its full stop at the same place."
WRAPPED = {
    "72 wide, blank lines": between(wrapped(72), [""]),
    "40 wide": between(wrapped(40), [""]),
    "double blank lines": between(wrapped(72), ["", ""]),
    "indented first lines, no blank": between(wrapped(72, initial_indent="   "), []),
    "indented block": between(wrapped(72, initial_indent="  ", subsequent_indent="  "), [""]),
    "one paragraph": max(wrapped(60), key=len),
    "Hebrew": textwrap.wrap(HEBREW, 70),
}
NOT_WRAPPED = {
    "a paragraph per line": between([[p] for p in paragraphs(60)], []),
    "a paragraph per line, blank between": between([[p] for p in paragraphs(60)], [""]),
    "a sentence per line": between([sentences(9, i) for i in range(30)], [""]),
    "sentences of one length": between([[EQUAL] * 5] * 20, [""]),
    "verse": between([verse(300)[i : i + 4] for i in range(0, 300, 4)], [""]),
    "a word per line": WORDS * 10,
    "numbers": [f"{i:8d} {i * i:20d} {i**3:30d}" for i in range(99)],
    "one line": [" ".join(sentences(500))],
    "nothing": [],
}


@pytest.mark.parametrize("name", [*WRAPPED, *NOT_WRAPPED])
def test_only_wrapped_lines_are_taken_for_wrapped(name):
    assert is_wrapped((WRAPPED | NOT_WRAPPED)[name]) == (name in WRAPPED)


def test_the_start_of_a_file_decides(monkeypatch):
    monkeypatch.setattr(text_files, "SAMPLE_CHARS", 10_000)
    assert is_wrapped([*WRAPPED["72 wide, blank lines"], *NOT_WRAPPED["verse"] * 9])


@pytest.mark.parametrize("width", [30, 100])
def test_joining_undoes_wrapping(width):
    original = [*paragraphs(40), "A well-known twenty-two-year-old - so he said - came again."]
    lines = between([textwrap.wrap(text, width) for text in original], [""])
    assert list(joined_paragraphs(lines)) == original
    long = [text for text in original if len(text) > width]
    indented = [textwrap.wrap(text, width, initial_indent="  ") for text in long]
    assert list(joined_paragraphs(between(indented, []))) == long


@pytest.mark.parametrize("num_blank", [2, 5])
def test_documents_end_at_two_or_more_blank_lines(num_blank):
    blanks = [""] * num_blank
    first = [*blanks, "CHAPTER I", *blanks, "The first", "one.", "", "It is", "short."]
    second = [*blanks, "CHAPTER II", "", "The", "second."]
    assert list(joined_paragraphs(first + second)) == [
        *("CHAPTER I", "The first one.", "It is short.", ""),
        *("CHAPTER II", "The second."),
    ]


def test_a_text_without_blank_lines_is_joined_in_parts(monkeypatch):
    monkeypatch.setattr(text_files, "MAX_PARAGRAPH_CHARS", 100)
    joined = list(joined_paragraphs(textwrap.wrap(" ".join(sentences(50)), 40)))
    assert all(len(paragraph) <= 141 for paragraph in joined)
    assert " ".join(joined) == " ".join(sentences(50))


PARTS = {
    "short": (["aa bb"], [["aa bb"]]),
    "exact": (["aaaaa", "bbbbb"], [["aaaaa", "bbbbb"]]),
    "paragraphs": (["aaaa"] * 6, [["aaaa"] * 3, ["aaaa"] * 3]),
    "long paragraph": (["aaaa bbbb cccc dddd eeee"], [["aaaa bbbb", "cccc dddd", "eeee"]]),
    "short rest": (["aaaa"] * 7, [["aaaa"] * 3, ["aaaa"] * 4]),
    "no spaces": (["a" * 27], [["a" * 10], ["a" * 10], ["a" * 7]]),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_document_are_not_much_shorter_than_asked(name):
    document, parts = PARTS[name]
    assert document_parts(document, 10) == parts
    assert document_parts(document, math.inf) == [document]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We stayed in!", "Why?"],
        ["Mr. Hill met Dr. Ames of St. Ives.", "He bowed."],
        ["J. S. Bach wrote it.", "Good."],
        ["“Ursula,” said Gudrun, “do you want to get married?”", "Ursula looked up."],
        ['He asked "Why?" and left.', '"Never," she said.', "(So it was.)", "1912 came."],
        ["It cost 3.50 francs, e.g. for bread, etc. and wine.", "Élan matters."],
        ["no capital. no boundary"],
    ],
)
def test_sentences_end_at_punctuation_before_a_capital(sentences):
    assert list(split_sentences(" ".join(sentences))) == sentences


@given(st.text(alphabet="aA .!?\"'()é1\t", max_size=60))
def test_sentences_lose_nothing_but_white_space(paragraph):
    assert "".join("".join(split_sentences(paragraph)).split()) == "".join(paragraph.split())
