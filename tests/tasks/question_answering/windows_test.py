"""Character offsets against a letter-by-letter normalizer; windows against BERT's own code."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import WordPiece
from sibert_jax.data.tokenizers.vocabulary import Cleaning
from sibert_jax.tasks.question_answering.windows import OffsetTokenizer, cut_windows

from .conftest import TOKENS

UNCASED = WordPiece((*TOKENS, "中", "##\u11ab", "\u1112", "##\u1161"))
CASED = WordPiece(
    (*TOKENS, "The", "Café", "cafe\u0301", "##\u0301", "中"),
    cleaning=Cleaning(do_lower_case=False, strip_accents=False),
)
ENCODER = OffsetTokenizer(UNCASED)


@pytest.mark.parametrize(
    ("tokenizer", "text", "wanted"),
    [
        (UNCASED, "The Café", [("the", "The"), ("cafe", "Café")]),
        (UNCASED, "cafe\u0301s!", [("cafe", "cafe\u0301"), ("##s", "s"), ("!", "!")]),
        (UNCASED, "oil\u0301\u0327 in", [("oil", "oil\u0301\u0327"), ("in", "in")]),
        (UNCASED, "o\u200bi\u0000l", [("oil", "o\u200bi\u0000l")]),  # dropped inside the word
        (UNCASED, "İn", [("in", "İn")]),  # one letter becomes two, of which one is stripped
        (UNCASED, "\u1112\u1161\u11ab",
         [("\u1112", "\u1112"), ("##\u1161", "\u1161"), ("##\u11ab", "\u11ab")]),
        (UNCASED, "한", [("\u1112", "한"), ("##\u1161", "한"), ("##\u11ab", "한")]),  # three
        (UNCASED, "😀 the 𝔘s", [("[UNK]", "😀"), ("the", "the"), ("[UNK]", "𝔘s")]),
        (UNCASED, "x中 oil", [("x", "x"), ("中", "中"), ("oil", "oil")]),
        (UNCASED, "the\t\u00a0oil", [("the", "the"), ("oil", "oil")]),
        (UNCASED, "", []),
        (CASED, "The Café", [("The", "The"), ("Café", "Café")]),
        (CASED, "cafe\u0301s", [("cafe\u0301", "cafe\u0301"), ("##s", "s")]),
        (CASED, "the\u200b 中oil", [("the", "the"), ("中", "中"), ("oil", "oil")]),
        (CASED, "oil\u0301 in", [("oil", "oil"), ("##\u0301", "\u0301"), ("in", "in")]),
    ],
)  # fmt: skip
def test_offsets_give_the_original_text_of_each_token(tokenizer, text, wanted):
    ids, starts, ends, _ = OffsetTokenizer(tokenizer).encode([text])
    assert ids.tolist() == tokenizer.encode_batch([text])[0].tolist()
    assert [(tokenizer.pieces[i], text[a:b]) for i, a, b in zip(ids, starts, ends)] == wanted


def letter_by_letter(text):
    """The letters that uncased BERT makes of a text, each with the index it comes from."""
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


@settings(max_examples=100)
@given(texts)
def test_each_token_is_its_normalized_letters(text):
    ids, starts, ends, _ = ENCODER.encode([text])
    letters = letter_by_letter(text)
    at = 0
    for i, start, end in zip(ids, starts, ends):
        token = UNCASED.pieces[i].removeprefix("##")
        if i == UNCASED.unk_id:  # a whole word, or a mark that the vocabulary lacks
            count = sum(start <= source < end for _, source in letters[at:])
            token = "".join(letter for letter, _ in letters[at : at + count])
        found = letters[at : at + len(token)]
        assert "".join(letter for letter, _ in found) == token
        assert found[0][1] == start
        assert start <= found[-1][1] < end
        # Only combining marks follow the last letter.
        assert all(unicodedata.category(c) == "Mn" for c in text[found[-1][1] + 1 : end])
        at += len(token)
    assert at == len(letters)


@settings(max_examples=40)
@given(st.lists(texts, max_size=4))
def test_ids_and_offsets_of_a_batch_are_those_of_each_text(batch):
    tokens = ENCODER.encode(batch)
    assert tokens.lengths.tolist() == [len(ids) for ids in UNCASED.encode_batch(batch)]
    alone = [ENCODER.encode([text]) for text in batch]
    for name in ("ids_T", "starts_T", "ends_T"):
        wanted = [value for part in alone for value in getattr(part, name).tolist()]
        assert getattr(tokens, name).tolist() == wanted


def devlin_windows(num_tokens, room, stride):
    """The loop of BERT's code."""
    spans, start = [], 0
    while start < num_tokens:
        length = min(num_tokens - start, room)
        spans.append((start, length))
        if start + length == num_tokens:
            break
        start += min(length, stride)
    return spans


def devlin_is_max_context(spans, current, position):
    """The function of BERT's code."""
    best_score, best_index = None, None
    for index, (start, length) in enumerate(spans):
        end = start + length - 1
        if position < start or position > end:
            continue
        score = min(position - start, end - position) + 0.01 * length
        if best_score is None or score > best_score:
            best_score, best_index = score, index
    return current == best_index


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 120), st.integers(1, 30), st.integers(1, 40))
    | st.tuples(st.integers(400, 700), st.integers(250, 390), st.integers(90, 300))
)
def test_windows_and_best_ranges_are_those_of_bert(size):
    windows = cut_windows(*size)
    spans = devlin_windows(*size)
    assert list(zip(windows.start, windows.length)) == spans
    for i, (start, length) in enumerate(spans):
        best = [p for p in range(start, start + length) if devlin_is_max_context(spans, i, p)]
        assert best == list(range(windows.best_start[i], windows.best_end[i]))
    # The ranges cover the context once.
    assert (windows.best_start[0], windows.best_end[-1]) == (0, size[0])
    np.testing.assert_array_equal(windows.best_start[1:], windows.best_end[:-1])
