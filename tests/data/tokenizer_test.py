import itertools
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.data import tokenizer as tokenizer_module
from sibert_jax.data.vocabulary import SPECIAL_PIECES, UNCASED, Cleaning

# The start of BERT's vocabulary in small: letters, continuations, punctuation and some words.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = (
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *",.!?'[]-中国",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *("un", "##aff", "##able", "the", "cafe", "naive", "em", "##bed", "##ding"),
    *("mask", "##ing", "want", "##ed", "run"),
)


@pytest.fixture
def tokenizer():
    return Tokenizer(PIECES)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("UNAFFABLE", "un ##aff ##able"),
        ("The café, the naïve.", "the cafe , the naive ."),
        ("embeddings", "em ##bed ##ding ##s"),
        ("wanted  running!", "want ##ed run ##n ##ing !"),
        ("[MASK] the [SEP]", "[ mask ] the [ s ##e ##p ]"),
        ("x中国y", "x 中 国 y"),
        ("the ¿ the", "the [UNK] the"),
        ("don't\tgo", "d ##o ##n ' t g ##o"),
        ("a" * 101 + " b", "[UNK] b"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_pieces_are_those_found_by_hand(tokenizer, text, pieces):
    (ids,) = tokenizer.encode_batch([text])
    assert [tokenizer.pieces[i] for i in ids] == pieces.split()


CLEANINGS = [Cleaning(*values) for values in itertools.product((True, False), repeat=3)]
CASED = Cleaning(do_lower_case=False, strip_accents=False)


@pytest.mark.parametrize(
    ("cleaning", "pieces"),
    [
        (UNCASED, "the cafe 中 国"),
        (CASED, "The café 中 国"),
        (Cleaning(do_lower_case=False), "The cafe 中 国"),
        (Cleaning(strip_accents=False), "the café 中 国"),
        (Cleaning(tokenize_chinese_chars=False), "the cafe 中国"),
    ],
)
def test_text_is_cleaned_as_the_vocabulary_asks(cleaning, pieces):
    words = ("the", "The", "café", "cafe", "Café", "中", "国", "中国")
    tokenizer = Tokenizer((*SPECIAL_PIECES, *words), cleaning=cleaning)
    (ids,) = tokenizer.encode_batch(["The café\u200b 中国"])
    assert [tokenizer.pieces[i] for i in ids] == pieces.split()


def reference(pieces, cleaning=UNCASED):
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
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab é\t\u0301\u3000Σ.中")))
)


@settings(max_examples=100)
@given(texts, st.sampled_from(CLEANINGS))
def test_word_by_word_gives_the_ids_of_whole_texts(batch, cleaning):
    pieces = (*PIECES, "É", "é", "##É", "##é", "A", "Σ")
    expected = [encoding.ids for encoding in reference(pieces, cleaning).encode_batch(batch)]
    found = Tokenizer(pieces, cleaning=cleaning).encode_batch(batch)
    assert [ids.tolist() for ids in found] == expected


def test_words_that_never_occur_may_fill_up_the_vocabulary(tokenizer, tmp_path):
    texts = ["the unaffable embeddings, [unused7]", "naïve 中国"]
    unused = [f"[unused{i}]" for i in range(1, 1 + -len(PIECES) % 128)]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*PIECES, *unused]) + "\n", encoding="utf-8")
    filled = Tokenizer.load(path)
    assert filled.vocab_size % 128 == 0
    for found, wanted in zip(filled.encode_batch(texts), tokenizer.encode_batch(texts)):
        np.testing.assert_array_equal(found, wanted)


def test_forgetting_words_changes_nothing(tokenizer, monkeypatch):
    batches = [["the unaffable", "wanted"], ["embeddings the"], ["the the", "cafe naive want"]]
    expected = [[ids.tolist() for ids in tokenizer.encode_batch(batch)] for batch in batches]
    monkeypatch.setattr(tokenizer_module, "MAX_CACHED_WORDS", 2)
    small = Tokenizer(PIECES)
    found = [[ids.tolist() for ids in small.encode_batch(batch)] for batch in batches]
    assert found == expected


def test_flat_ids_and_lengths_describe_the_batch(tokenizer):
    ids, lengths = tokenizer.encode_flat(["the cafe", "", "unaffable"])
    assert lengths.tolist() == [2, 0, 3]
    assert (ids.dtype, len(ids)) == (np.dtype(np.int32), 5)


def test_ids_and_kinds_of_pieces_follow_the_vocabulary(tokenizer):
    special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
    assert special == (0, 2, 3, 4)
    assert tokenizer.mask_id == 5
    assert tokenizer.is_special.tolist() == [True] * 6 + [False] * (len(PIECES) - 6)
    assert [p for p, c in zip(PIECES, tokenizer.is_continuation) if c] == [
        p for p in PIECES if p[:2] == "##"
    ]
    assert tokenizer.vocab_size == len(PIECES)


def test_save_and_load_keep_ids_and_hash(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocab.txt")
    loaded = Tokenizer.load(tmp_path / "vocab.txt")
    assert (loaded.pieces, loaded.hash) == (tokenizer.pieces, tokenizer.hash)
    assert Tokenizer(PIECES[:-1]).hash != tokenizer.hash


@pytest.mark.parametrize("cleaning", CLEANINGS)
def test_the_cleaning_is_saved_with_the_pieces_and_in_the_hash(tmp_path, cleaning):
    tokenizer = Tokenizer(PIECES, cleaning=cleaning)
    tokenizer.save(tmp_path / "vocab.txt")
    for path in (tmp_path / "vocab.txt", tmp_path):
        loaded = Tokenizer.load(path)
        assert (loaded.pieces, loaded.cleaning) == (PIECES, cleaning)
        assert loaded.hash == tokenizer.hash
    assert (tokenizer.hash == Tokenizer(PIECES).hash) == (cleaning == UNCASED)


def write_settings(directory, **settings):
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "cleaning"),
    [
        ({}, UNCASED),
        ({"do_lower_case": None, "strip_accents": None, "never_split": None}, UNCASED),
        ({"do_lower_case": False, "model_max_length": 512}, CASED),
        ({"do_lower_case": False, "strip_accents": True}, Cleaning(do_lower_case=False)),
        ({"strip_accents": False}, Cleaning(strip_accents=False)),
        ({"tokenize_chinese_chars": False}, Cleaning(tokenize_chinese_chars=False)),
        ({"tokenizer_class": "BertTokenizerFast", "do_basic_tokenize": True}, UNCASED),
        ({"mask_token": {"content": "[MASK]", "lstrip": False}, "unk_token": "[UNK]"}, UNCASED),
        ({"never_split": ["[CLS]", "[MASK]"]}, UNCASED),
    ],
)
def test_settings_beside_the_pieces_are_honoured(tokenizer, tmp_path, settings, cleaning):
    tokenizer.save(tmp_path / "pieces.txt")
    write_settings(tmp_path, **settings)
    assert Tokenizer.load(tmp_path / "pieces.txt").cleaning == cleaning


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"do_lower_case": "false"}, "do_lower_case is 'false', wanted bool"),
        ({"strip_accents": 1}, "strip_accents is 1, wanted bool"),
        ({"tokenizer_class": "RobertaTokenizer"}, "tokenizer_class is 'RobertaTokenizer', and on"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "described by tokenizer.json"),
        ({"unk_token": "<unk>"}, "unk_token is '<unk>', and only '.UNK.' can be used"),
        ({"never_split": ["don't"]}, 'never_split holds "don\'t"'),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is false"),
        ([1], "holds list, wanted an object"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(tokenizer, tmp_path, settings, complaint):
    tokenizer.save(tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=rf"tokenizer_config.json:? .*{complaint}"):
        Tokenizer.load(tmp_path / "vocab.txt")


def save_library(directory, change=lambda values: None, cleaning=CASED):
    model = reference(PIECES, cleaning)
    model.add_special_tokens(list(SPECIAL_PIECES))
    values = json.loads(model.to_str())
    change(values)
    (directory / "tokenizer.json").write_text(json.dumps(values))


def added(text, special, i=None):
    return {"id": len(PIECES) if i is None else i, "content": text, "special": special}


@pytest.mark.parametrize(
    ("settings", "change", "pieces", "cleaning"),
    [
        ({}, lambda v: None, PIECES, CASED),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, lambda v: None, PIECES, CASED),
        ({"do_lower_case": True}, lambda v: None, PIECES, UNCASED),
        ({}, lambda v: v["added_tokens"].append(added("[E]", True)), (*PIECES, "[E]"), CASED),
        (
            {"added_tokens_decoder": {str(len(PIECES)): {"content": "[E]", "special": True}}},
            lambda v: None,
            (*PIECES, "[E]"),
            CASED,
        ),
    ],
)
def test_tokenizer_json_says_what_no_other_file_does(tmp_path, settings, change, pieces, cleaning):
    save_library(tmp_path, change)
    write_settings(tmp_path, **settings)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.pieces, loaded.cleaning) == (pieces, cleaning)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v["model"].update(type="BPE"), "model.type is 'BPE'"),
        (lambda v: v["model"].update(unk_token="<unk>"), "model.unk_token is '<unk>'"),
        (lambda v: v["normalizer"].update(type="NFKC"), "normalizer.type is 'NFKC'"),
        (lambda v: v.update(normalizer=None), "is not of a WordPiece tokenizer"),
        (lambda v: v["model"]["vocab"].pop("the"), "ids of model.vocab are not 0, 1, 2"),
        (lambda v: v["added_tokens"].append(added("covid", False)), "adds the word 'covid'"),
        (lambda v: v["added_tokens"].append(added("[E]", True, 999)), "with the id 999"),
    ],
)
def test_another_tokenizer_json_is_refused(tmp_path, change, complaint):
    save_library(tmp_path, change)
    with pytest.raises(DataError, match=complaint):
        Tokenizer.load(tmp_path)


def test_two_vocabularies_in_a_directory_must_agree(tmp_path):
    save_library(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    assert Tokenizer.load(tmp_path).pieces == PIECES
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES[:-1]))
    with pytest.raises(DataError, match="hold different vocabularies"):
        Tokenizer.load(tmp_path)
    assert Tokenizer.load(tmp_path / "vocab.txt").pieces == PIECES[:-1]


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        (("[PAD]", "[UNK]", "[CLS]", "a"), r"lacks the special tokens \[SEP\], \[MASK\]"),
        ((*SPECIAL_PIECES, "a", "b", "a"), r"has 'a' twice, on lines 6 and 8"),
        ((*SPECIAL_PIECES, "", "b"), r"has an empty line 6"),
    ],
)
def test_a_faulty_vocabulary_file_is_named(tmp_path, pieces, complaint):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in pieces))
    with pytest.raises(DataError, match=rf"vocab\.txt {complaint}"):
        Tokenizer.load(path)


def test_a_vocabulary_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*absent\.txt: No such file"):
        Tokenizer.load(tmp_path / "absent.txt")
