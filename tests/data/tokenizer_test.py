import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.data import tokenizer as tokenizer_module
from sibert_jax.data.tokenizer import SPECIAL_PIECES

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


def reference(pieces):
    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    model.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return model


texts = st.lists(
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab é\t\u0301\u3000Σ.中")))
)


@settings(max_examples=100)
@given(texts)
def test_word_by_word_gives_the_ids_of_whole_texts(batch):
    expected = [encoding.ids for encoding in reference(PIECES).encode_batch(batch)]
    found = Tokenizer(PIECES).encode_batch(batch)
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


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        (("[PAD]", "[UNK]", "[CLS]", "a"), r"lacks the special pieces \[SEP\], \[MASK\]"),
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
