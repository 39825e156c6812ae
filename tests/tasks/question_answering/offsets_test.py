"""Where each piece comes from, against a normaliser that goes letter by letter."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data.vocabulary import Cleaning
from sibert_jax.tasks.question_answering.offsets import OffsetTokenizer

from .conftest import PIECES, Tokenizer

TOKENIZER = Tokenizer((*PIECES, "中", "##\u11ab", "\u1112", "##\u1161"))
ENCODER = OffsetTokenizer(TOKENIZER)


def cut(text):
    """The pieces of a text and the parts of it that they stand for."""
    ids, starts, ends, _ = ENCODER.encode([text])
    return [(TOKENIZER.pieces[i], text[a:b]) for i, a, b in zip(ids, starts, ends)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Café", [("the", "The"), ("cafe", "Café")]),
        ("cafe\u0301s!", [("cafe", "cafe\u0301"), ("##s", "s"), ("!", "!")]),
        ("oil\u0301\u0327 in", [("oil", "oil\u0301\u0327"), ("in", "in")]),  # two marks at the end
        ("o\u200bi\u0000l", [("oil", "o\u200bi\u0000l")]),  # dropped inside: part of the word
        ("İn", [("in", "İn")]),  # one letter becomes two, of which one is stripped
        (
            "\u1112\u1161\u11ab",
            [("\u1112", "\u1112"), ("##\u1161", "\u1161"), ("##\u11ab", "\u11ab")],
        ),
        (
            "한",
            [("\u1112", "한"), ("##\u1161", "한"), ("##\u11ab", "한")],
        ),  # one letter becomes three
        ("😀 the 𝔘s", [("[UNK]", "😀"), ("the", "the"), ("[UNK]", "𝔘s")]),
        ("x中 oil", [("x", "x"), ("中", "中"), ("oil", "oil")]),
        ("the\t\u00a0oil", [("the", "the"), ("oil", "oil")]),
        ("", []),
    ],
)
def test_pieces_are_cut_out_of_the_text_as_it_was_written(text, wanted):
    assert cut(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Café", [("The", "The"), ("Café", "Café")]),
        ("cafe\u0301s", [("cafe\u0301", "cafe\u0301"), ("##s", "s")]),
        ("the\u200b 中oil", [("the", "the"), ("中", "中"), ("oil", "oil")]),
        ("oil\u0301 in", [("oil", "oil"), ("##\u0301", "\u0301"), ("in", "in")]),
    ],
)
def test_a_cased_vocabulary_has_its_own_places(text, wanted):
    words = ("The", "Café", "cafe\u0301", "##\u0301", "中")
    cleaning = Cleaning(do_lower_case=False, strip_accents=False)
    tokenizer = Tokenizer((*PIECES, *words), cleaning=cleaning)
    ids, starts, ends, _ = OffsetTokenizer(tokenizer).encode([text])
    assert ids.tolist() == tokenizer.encode_batch([text])[0].tolist()
    assert [(tokenizer.pieces[i], text[a:b]) for i, a, b in zip(ids, starts, ends)] == wanted


def letter_by_letter(text):
    """What uncased BERT makes of each letter alone, and which letter each result comes from."""
    result = []
    for i, letter in enumerate(text):
        if letter.isspace() or letter in "\t\n\r":
            continue
        if letter in "\0\ufffd" or unicodedata.category(letter).startswith("C"):
            continue
        plain = (c for c in unicodedata.normalize("NFD", letter) if unicodedata.category(c) != "Mn")
        result += [(lower, i) for c in plain for lower in c.lower()]
    return result


texts = st.text(
    st.sampled_from("abcXYZ019 .,'-\t\u0301\u0327éÉöÅñçÇêõ\u00a0\u200b\u0000İ한국ẞ")
    | st.characters(codec="utf-8", max_codepoint=0x2FF),
    max_size=40,
)


@settings(max_examples=150)
@given(texts)
def test_each_piece_is_what_its_letters_become(text):
    ids, starts, ends, _ = ENCODER.encode([text])
    letters = letter_by_letter(text)
    place = 0
    for i, start, end in zip(ids, starts, ends):
        piece = TOKENIZER.pieces[i].removeprefix("##")
        if i == TOKENIZER.unk_id:  # a whole word, or a mark that the vocabulary lacks
            count = sum(start <= source < end for _, source in letters[place:])
            piece = "".join(letter for letter, _ in letters[place : place + count])
        found = letters[place : place + len(piece)]
        assert "".join(letter for letter, _ in found) == piece
        assert found[0][1] == start
        assert start <= found[-1][1] < end
        # Behind the last letter there is nothing but the accents on it.
        assert all(unicodedata.category(c) == "Mn" for c in text[found[-1][1] + 1 : end])
        place += len(piece)
    assert place == len(letters)


@settings(max_examples=100)
@given(st.lists(texts, max_size=4))
def test_ids_are_those_of_the_tokenizer(batch):
    pieces = ENCODER.encode(batch)
    wanted = TOKENIZER.encode_batch(batch)
    assert pieces.lengths.tolist() == [len(ids) for ids in wanted]
    assert pieces.ids_T.tolist() == [i for ids in wanted for i in ids.tolist()]


def test_offsets_count_from_each_text_and_not_from_the_batch():
    pieces = ENCODER.encode(["the oil", "", "oil  crisis"])
    assert pieces.lengths.tolist() == [2, 0, 2]
    assert pieces.starts_T.tolist() == [0, 4, 0, 5]
    assert pieces.ends_T.tolist() == [3, 7, 3, 11]
