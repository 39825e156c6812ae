"""Documents are split into parts, sentences and texts of a largest length."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sibert_jax.data.documents import document_parts, split_at_spaces, split_sentences

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


@given(st.text(alphabet="ab ", max_size=40), st.integers(1, 9))
def test_splitting_at_spaces_loses_only_those_spaces(text, max_chars):
    parts = list(split_at_spaces(text, max_chars))
    assert all(0 < len(part) <= max_chars for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
