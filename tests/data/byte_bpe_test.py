"""Byte-level BPE: GPT-2's ids, exact round trips, its files and its training."""

import itertools
import json
import re

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sibert_jax.data import ByteBPE, DataError, Tokenizer, WordPiece
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES

MERGES = [tuple(pair.split()) for pair in (
    "h e", "Ġ t", "Ġt he", "l l", "o w", "e r", "he r", "Ã ©", "Ġ Ġ", "1 2", "12 3", "' s", "Ċ Ċ",
)]  # fmt: skip
TOKENIZER = ByteBPE.of_merges(MERGES, 256 + len(MERGES) + 3)

# GPT-2's rule, where \p{L} is [^\W\d_] and \p{N} is \d, as of the characters used here.
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def reference(text):
    """The ids of GPT-2's published encoder, without its speed."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    characters, order = {}, []
    for byte in (*printable, *(byte for byte in range(256) if byte not in printable)):
        characters[byte] = chr(byte if byte in printable else 256 + len(order) - len(printable))
        order.append(characters[byte])
    order += ["".join(pair) for pair in MERGES]
    ids = []
    for word in WORDS.findall(text):
        symbols = [characters[byte] for byte in word.encode()]
        while pairs := [pair for pair in itertools.pairwise(symbols) if pair in MERGES]:
            best, joined = min(pairs, key=MERGES.index), []
            while symbols:
                size = 2 if tuple(symbols[:2]) == best else 1
                joined.append("".join(symbols[:size]))
                symbols = symbols[size:]
            symbols = joined
        ids += map(order.index, symbols)
    return ids


@settings(max_examples=30)
@given(st.lists(st.text(st.sampled_from("therlow123' \n\t.,_sdé中!?"), max_size=30), max_size=4))
@example(["the lower  the\n\nhers", "", "he'll 1234 'sé\u3000\n x ", "  "])
@example(["<|endoftext|> is text, <|unused0|> too"])
def test_ids_are_those_of_the_published_algorithm(batch):
    expected = [reference(text) for text in batch]
    assert [ids.tolist() for ids in TOKENIZER.encode_batch(batch)] == expected
    ids, lengths = TOKENIZER.encode_flat(batch)
    assert (ids.dtype, ids.tolist()) == (np.dtype(np.int32), list(itertools.chain(*expected)))
    assert lengths.tolist() == list(map(len, expected))


@given(st.text(st.characters(codec="utf-8")))
@example("\r\n\0 \u2028é\ufeff 👩‍🚀<|endoftext|>")
def test_a_text_is_its_ids_byte_for_byte(text):
    (ids,) = TOKENIZER.encode_batch([text])
    assert TOKENIZER.decode([TOKENIZER.end_id, *ids]) == text
    assert TOKENIZER.num_bytes[ids].sum() == len(text.encode())
    assert not TOKENIZER.is_special[ids].any()


def test_a_cut_character_is_replaced_and_special_tokens_have_no_text():
    (ids,) = TOKENIZER.encode_batch(["the 中"])
    assert TOKENIZER.decode(ids[:-1]) == "the \ufffd"
    special = np.flatnonzero(TOKENIZER.is_special)
    found = [TOKENIZER.pieces[i] for i in special]
    assert found == ["<|endoftext|>", "<|unused0|>", "<|unused1|>"]
    assert (TOKENIZER.decode(special), TOKENIZER.num_bytes[special].sum()) == ("", 0)
    assert TOKENIZER.end_id == TOKENIZER.pad_id == special[0]


def library_file(directory):
    """What `save_pretrained` of transformers writes."""
    ids = {piece: i for i, piece in enumerate(TOKENIZER.pieces)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(ids, MERGES))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.add_special_tokens(["<|endoftext|>"])
    (directory / "tokenizer.json").write_text(model.to_str())
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "pad_token": None}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def test_every_form_of_the_files_gives_the_same_vocabulary(tmp_path):
    for name in ("saved", "bare", "library"):
        (tmp_path / name).mkdir()
    TOKENIZER.save(tmp_path / "saved/vocab.json")
    for name in ("vocab.json", "merges.txt"):
        text = (tmp_path / "saved" / name).read_text().removeprefix("#version: 0.2\n")
        (tmp_path / "bare" / name).write_text(text)
    library_file(tmp_path / "library")
    for path in ("saved", "saved/vocab.json", "bare", "library"):
        loaded = Tokenizer.load(tmp_path / path)
        assert (loaded.kind, loaded.hash) == ("byte_bpe", TOKENIZER.hash)
        assert (loaded.pieces, loaded.merges) == (TOKENIZER.pieces, tuple(MERGES))
    others = [ByteBPE.of_merges(MERGES, 273), ByteBPE(TOKENIZER.pieces, [*MERGES[1:], MERGES[0]])]
    assert len({TOKENIZER.hash, *(other.hash for other in others)}) == 3
    WordPiece(SPECIAL_PIECES).save(tmp_path / "vocab.txt")
    assert Tokenizer.load(tmp_path).kind == "wordpiece"


def test_merges_are_those_found_by_hand():
    texts = ["abc"] * 5 + ["ab"] * 4 + ["abcb"] * 2 + ["cb"]
    # a b 11 beats b c 7, which is left with none; ab c 7 beats c b 3, left with one; abc b 2 is
    # left, as one is too few.
    expected = [("a", "b"), ("ab", "c"), ("abc", "b")]
    for order in (texts, texts[::-1]):
        assert ByteBPE.learned(order, 265).hash == ByteBPE.of_merges(expected, 265).hash
    assert ByteBPE.learned(texts, 258).merges == (("a", "b"),)


# Change to the files of a directory -> words of the sentence.
def without_token(piece):
    return lambda pieces, merges: ([p for p in pieces if p != piece], merges)


BAD = [
    (
        without_token("<|endoftext|>"),
        r"^the vocabulary .* lacks <\|endoftext\|>, the end-of-",
    ),
    (
        without_token("Ġthe"),
        "lacks 'Ġthe', of the merge 'Ġt he'; the merges belong to another vocab",
    ),
    (without_token("A"), "lacks 1 of the 256 bytes, such as 0x41"),
    (lambda p, m: (p, m[:-2]), 'has 2 tokens that no merge produces, such as "\'s"'),
    (lambda p, m: (p, [*m, "h"]), r"merges\.txt: line 15 is 'h', expected two tokens"),
    (lambda p, m: (p, [*m, "h e r"]), "line 15 is 'h e r', expected two tokens"),
    (lambda p, m: (p, None), r"merges\.txt is missing; it holds the merges"),
    (lambda p, m: (None, m), r"vocab\.json is missing; it defines the token ids"),
    (lambda p, m: ([*p, 7], m), "holds list, expected a JSON object"),
]


@pytest.mark.parametrize("case", range(len(BAD)), ids=lambda i: re.sub(r"\W+", " ", BAD[i][1]))
def test_files_that_do_not_fit_are_named(tmp_path, case):
    change, words = BAD[case]
    pieces, merges = change(list(TOKENIZER.pieces), [" ".join(pair) for pair in MERGES])
    if pieces is not None:
        ids = pieces if 7 in pieces else {piece: i for i, piece in enumerate(pieces)}
        (tmp_path / "vocab.json").write_text(json.dumps(ids))
    if merges is not None:
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    with pytest.raises(DataError, match=words):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "has a normalizer"),
        ("tokenizer.json", {"pre_tokenizer": None}, "not a file of GPT-2's tokenizer"),
        ("tokenizer_config.json", {"add_prefix_space": True}, "add_prefix_space is true"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "CLIPTokenizer"},
            "only supported byte-level BPE is GPT-2's",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": 1}}, "has an unexpected format"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, file, change, words):
    library_file(tmp_path)
    values = json.loads((tmp_path / file).read_text()) | change
    (tmp_path / file).write_text(json.dumps(values))
    with pytest.raises(DataError, match=words):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_has_room_for_all_bytes():
    with pytest.raises(DataError, match="needs model.vocab_size of at least 257.*not 256"):
        ByteBPE.learned(["a"], 256)
