import pytest
from hypothesis import given
from hypothesis import strategies as st

from sibert_jax.data.documents import MAX_SENTENCE_CHARS, split_sentences


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
def test_no_character_but_white_space_is_lost(paragraph):
    assert "".join("".join(split_sentences(paragraph)).split()) == "".join(paragraph.split())


def test_a_paragraph_without_punctuation_is_cut_into_short_pieces():
    pieces = list(split_sentences("word " * 1000))
    assert max(map(len, pieces)) <= MAX_SENTENCE_CHARS
    assert " ".join(pieces).split() == ["word"] * 1000
