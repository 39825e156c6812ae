"""Text to ids as Hugging Face's BERT tokenizer does, and a vocabulary's files and training."""

import collections
import itertools
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sibert_jax.data import Tokenizer, WordPiece
from sibert_jax.data.tokenizers import word_piece
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES, UNCASED, Cleaning
from sibert_jax.data.vocabulary_training import train_wordpieces

# BERT's vocabulary in small: letters, continuations, punctuation and some words.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = (
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *",.!?'[]-中国",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *("un", "##aff", "##able", "the", "cafe", "naive", "em", "##bed", "##ding"),
    *("mask", "##ing", "want", "##ed", "run"),
)
CLEANINGS = [Cleaning(*values) for values in itertools.product((True, False), repeat=3)]
CASED = Cleaning(do_lower_case=False, strip_accents=False)


@pytest.fixture
def tokenizer():
    return WordPiece(PIECES)


def reference(pieces, cleaning=UNCASED):
    """The tokenizer of Hugging Face `tokenizers`."""
    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    model.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=cleaning.do_lower_case,
        strip_accents=cleaning.strip_accents,
        handle_chinese_chars=cleaning.tokenize_chinese_chars,
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return model


texts = st.lists(
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab é\t\u0301\u3000Σ.中"))),
    max_size=6,
)


@settings(max_examples=40)
@given(texts, st.sampled_from(CLEANINGS))
@example(
    ["UNAFFABLE  running!", "The café, the naïve.", "[MASK] the [SEP]", "a ¿ don't\tgo"], UNCASED
)
@example(["x中国y", "a" * 101 + " b", "", "  "], UNCASED)
def test_word_by_word_gives_the_ids_of_whole_texts(batch, cleaning):
    pieces = (*PIECES, "É", "é", "##É", "##é", "A", "Σ")
    expected = [encoding.ids for encoding in reference(pieces, cleaning).encode_batch(batch)]
    tokenizer = WordPiece(pieces, cleaning=cleaning)
    assert [ids.tolist() for ids in tokenizer.encode_batch(batch)] == expected
    ids, lengths = tokenizer.encode_flat(batch)
    assert (ids.dtype, ids.tolist()) == (np.dtype(np.int32), list(itertools.chain(*expected)))
    assert lengths.tolist() == [len(ids) for ids in expected]


@pytest.mark.parametrize("size", [2, 10**6])
def test_ids_do_not_depend_on_cached_words_or_unused_tokens(tokenizer, monkeypatch, size):
    monkeypatch.setattr(word_piece, "MAX_CACHED_WORDS", size)
    filled = tokenizer.filled(128)
    assert filled.vocab_size == 128
    for batch in (["the unaffable, [unused7]", "wanted"], ["embeddings"], ["the the", "naïve 中"]):
        expected = [encoding.ids for encoding in reference(PIECES).encode_batch(batch)]
        assert [ids.tolist() for ids in filled.encode_batch(batch)] == expected


@pytest.mark.parametrize("cleaning", CLEANINGS)
def test_save_and_load_keep_tokens_cleaning_and_hash(tmp_path, cleaning):
    tokenizer = WordPiece(PIECES, cleaning=cleaning)
    tokenizer.save(tmp_path / "vocab.txt")
    for path in (tmp_path / "vocab.txt", tmp_path):
        loaded = Tokenizer.load(path)
        assert (loaded.pieces, loaded.cleaning) == (PIECES, cleaning)
        assert loaded.hash == tokenizer.hash
    assert (tokenizer.hash == WordPiece(PIECES).hash) == (cleaning == UNCASED)
    assert tokenizer.hash != WordPiece(PIECES[:-1], cleaning=cleaning).hash


@pytest.mark.parametrize(
    ("settings", "cleaning"),
    [
        ({}, UNCASED),
        ({"do_lower_case": None, "never_split": None}, UNCASED),
        ({"do_lower_case": False, "model_max_length": 512}, CASED),
        ({"do_lower_case": False, "strip_accents": True}, Cleaning(do_lower_case=False)),
        ({"strip_accents": False}, Cleaning(strip_accents=False)),
        ({"tokenize_chinese_chars": False}, Cleaning(tokenize_chinese_chars=False)),
        ({"tokenizer_class": "BertTokenizerFast", "do_basic_tokenize": True}, UNCASED),
        ({"mask_token": {"content": "[MASK]", "lstrip": False}, "unk_token": "[UNK]"}, UNCASED),
        ({"never_split": ["[CLS]", "[MASK]"]}, UNCASED),
    ],
)
def test_settings_beside_the_vocabulary_apply(tokenizer, tmp_path, settings, cleaning):
    tokenizer.save(tmp_path / "pieces.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert Tokenizer.load(tmp_path / "pieces.txt").cleaning == cleaning


ADDED = {"id": len(PIECES), "content": "[E]", "special": True}


@pytest.mark.parametrize(
    ("settings", "added_tokens", "cleaning"),
    [
        ({}, [], CASED),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, [], CASED),
        ({"do_lower_case": True}, [], UNCASED),
        ({}, [ADDED], CASED),
        ({"added_tokens_decoder": {str(len(PIECES)): ADDED}}, [], CASED),
    ],
)
@pytest.mark.parametrize("with_lines", [False, True])
def test_tokenizer_json_supplies_what_no_other_file_has(
    tmp_path, settings, added_tokens, cleaning, with_lines
):
    values = json.loads(reference(PIECES, CASED).to_str())
    values["added_tokens"] += added_tokens
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    if with_lines:
        (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    expected = (*PIECES, "[E]") if added_tokens or "added_tokens_decoder" in settings else PIECES
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.pieces, loaded.cleaning) == (expected, cleaning)


def test_merges_are_those_found_by_hand():
    counts = collections.Counter({"abc": 5, "ab": 4, "abcb": 2, "cb": 1})
    # a##b 11 beats ##b##c 7, which is left with none; then ab##c 7 beats ##c##b 2, left with none;
    # then abc##b 2 is left, as the one c##b is too few.
    expected = ("b", "##b", "a", "c", "##c", "ab", "abc", "abcb", "[unused0]", "[unused1]")
    found = train_wordpieces(counts, 5 + 10)
    assert found == (*SPECIAL_PIECES, *expected)
    assert train_wordpieces(collections.Counter(dict(reversed(counts.items()))), 5 + 10) == found
    assert WordPiece(found).is_special.sum() == 5 + 2


def test_where_nothing_ties_the_result_is_that_of_hugging_face():
    rng = np.random.default_rng(0)
    syllables = [c + v for c in "bdklmnrst" for v in "aeiou"]
    weights = 1 / np.arange(1, 1 + len(syllables))
    weights /= weights.sum()
    words = ["".join(rng.choice(syllables, rng.integers(2, 6), p=weights)) for _ in range(4000)]
    options = {"special_tokens": list(SPECIAL_PIECES), "show_progress": False}
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=100, **options)
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.train_from_iterator(words, trainer)
    found = train_wordpieces(collections.Counter(words), 100)
    assert set(found) == set(model.get_vocab())


def test_words_are_cleaned_and_split_at_punctuation():
    tokenizer = WordPiece(train_wordpieces(collections.Counter({"Café-au-Lait!": 9}), 60))
    (ids,) = tokenizer.encode_batch(["CAFE - au lait"])
    assert [tokenizer.pieces[i] for i in ids] == ["cafe", "-", "au", "lait"]
