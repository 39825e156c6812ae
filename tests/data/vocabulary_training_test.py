import collections

import numpy as np
import tokenizers

from sibert_jax.data import Tokenizer
from sibert_jax.data.vocabulary import SPECIAL_PIECES
from sibert_jax.data.vocabulary_training import train_wordpieces


def test_merges_are_those_found_by_hand():
    counts = collections.Counter({"abc": 5, "ab": 4, "abcb": 2, "cb": 1})
    # a##b 11 beats ##b##c 7, which is left with none; then ab##c 7 beats ##c##b 2, left with none;
    # then abc##b 2 is left, as the one c##b is too few.
    expected = ("b", "##b", "a", "c", "##c", "ab", "abc", "abcb", "[unused0]", "[unused1]")
    found = train_wordpieces(counts, 5 + 10)
    assert found == (*SPECIAL_PIECES, *expected)
    assert train_wordpieces(collections.Counter(dict(reversed(counts.items()))), 5 + 10) == found
    assert Tokenizer(found).is_special.sum() == 5 + 2


def test_where_nothing_ties_the_result_is_that_of_hugging_face():
    rng = np.random.default_rng(0)
    syllables = [c + v for c in "bdklmnrst" for v in "aeiou"]
    weights = 1 / np.arange(1, 1 + len(syllables))
    weights /= weights.sum()
    words = ["".join(rng.choice(syllables, rng.integers(2, 6), p=weights)) for _ in range(4000)]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=100, special_tokens=list(SPECIAL_PIECES), show_progress=False
    )
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.train_from_iterator(words, trainer)
    found = train_wordpieces(collections.Counter(words), 100)
    assert set(found) == set(model.get_vocab())


def test_words_are_cleaned_and_split_at_punctuation():
    tokenizer = Tokenizer(train_wordpieces(collections.Counter({"Café-au-Lait!": 9}), 60))
    (ids,) = tokenizer.encode_batch(["CAFE - au lait"])
    assert [tokenizer.pieces[i] for i in ids] == ["cafe", "-", "au", "lait"]
