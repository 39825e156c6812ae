import collections

import numpy as np
import pytest
import tokenizers

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.data.tokenizer import SPECIAL_PIECES
from sibert_jax.data.vocabulary_training import train_wordpieces


def made_up_words(num_words, seed=0):
    """Words of two to five syllables: so many that no two frequent pairs are equally frequent."""
    rng = np.random.default_rng(seed)
    syllables = [c + v for c in "bdklmnrst" for v in "aeiou"]
    weights = 1 / np.arange(1, 1 + len(syllables))
    weights /= weights.sum()
    return ["".join(rng.choice(syllables, rng.integers(2, 6), p=weights)) for _ in range(num_words)]


def test_merges_are_those_found_by_hand():
    counts = collections.Counter({"abc": 5, "ab": 4, "abcb": 2, "cb": 1})
    # a##b 11 beats ##b##c 7, which is left with none; then ab##c 7 beats ##c##b 2, left with none;
    # then abc##b 2 is left, as the one c##b is too few.
    expected = ("b", "##b", "a", "c", "##c", "ab", "abc", "abcb", "[unused0]", "[unused1]")
    assert train_wordpieces(counts, 5 + 10) == (*SPECIAL_PIECES, *expected)


def test_the_order_of_the_words_changes_nothing():
    words = made_up_words(1000)
    counts = collections.Counter(words)
    reversed_counts = collections.Counter(dict(reversed(counts.items())))
    assert train_wordpieces(counts, 200) == train_wordpieces(reversed_counts, 200)


def test_pieces_are_those_of_hugging_face_where_nothing_ties():
    words = made_up_words(5000)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=100, special_tokens=list(SPECIAL_PIECES), show_progress=False
    )
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.train_from_iterator(words, trainer)
    found = train_wordpieces(collections.Counter(words), 100)
    assert set(found) == set(model.get_vocab())


def test_words_are_cleaned_and_split_at_punctuation():
    counts = collections.Counter({"Café-au-Lait!": 9})
    tokenizer = Tokenizer(train_wordpieces(counts, 60))
    assert [tokenizer.pieces[i] for i in tokenizer.encode_batch(["CAFE - au lait"])[0]] == [
        "cafe",
        "-",
        "au",
        "lait",
    ]


def test_a_small_text_leaves_unused_pieces():
    pieces = train_wordpieces(collections.Counter({"ab": 3}), 20)
    assert len(pieces) == 20
    assert pieces[-1] == "[unused10]"
    assert Tokenizer(pieces).is_special.sum() == 5 + 11


def test_a_size_without_room_for_letters_is_refused():
    with pytest.raises(DataError, match="needs vocab_size of at least 9, not 8"):
        train_wordpieces(collections.Counter({"ab": 3}), 8)
