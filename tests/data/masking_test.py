import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, Masker

ORDINARY = 5  # the first id that is not special


def masked(tokenizer, tokens, seed=0, mask_rate=0.15, whole_word=False):
    shown = tokens.copy()
    masker = Masker(tokenizer, len(tokens), mask_rate, whole_word)
    return masker(shown, np.random.default_rng(seed)), shown


def sequence(tokenizer, num_text, num_padding=0):
    return np.array(
        [
            tokenizer.cls_id,
            *(ORDINARY + np.arange(num_text)),
            tokenizer.sep_id,
            *[tokenizer.pad_id] * num_padding,
        ],
        np.int32,
    )


@settings(max_examples=60)
@given(
    num_text=st.integers(1, 60),
    num_padding=st.integers(0, 20),
    mask_rate=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_the_share_of_real_tokens_is_chosen_among_ordinary_ones(
    num_text, num_padding, mask_rate, seed, make_tokenizer
):
    tokenizer = make_tokenizer(60)
    tokens = sequence(tokenizer, num_text, num_padding)
    positions, shown = masked(tokenizer, tokens, seed, mask_rate)
    wanted = min(max(1, round(mask_rate * (num_text + 2))), num_text)
    assert len(positions) == wanted <= math.ceil(mask_rate * len(tokens))
    assert (np.diff(positions) > 0).all()
    assert (tokens[positions] >= ORDINARY).all()
    untouched = np.delete(np.arange(len(tokens)), positions)
    assert (shown[untouched] == tokens[untouched]).all()


def test_of_the_chosen_80_percent_are_hidden_10_random_10_kept(make_tokenizer):
    tokenizer = make_tokenizer(400)
    tokens = sequence(tokenizer, 200)
    hidden = kept = 0
    drawn = []
    for seed in range(400):
        positions, shown = masked(tokenizer, tokens, seed)
        hidden += (shown[positions] == tokenizer.mask_id).sum()
        kept += (shown[positions] == tokens[positions]).sum()
        other = shown[positions][shown[positions] != tokenizer.mask_id]
        drawn += [token for token in other if token not in tokens[positions]]
    total = 400 * round(0.15 * 202)
    for count, share in ((hidden, 0.8), (kept, 0.1 + 0.1 / 400)):
        assert abs(count / total - share) < 5 * np.sqrt(share * (1 - share) / total)
    assert min(drawn) >= ORDINARY
    assert len(set(drawn)) > 300  # of 400 pieces, 1,200 draws


def test_every_ordinary_position_is_chosen_equally_often(make_tokenizer):
    tokenizer = make_tokenizer(40)
    tokens = sequence(tokenizer, 40)
    counts = np.zeros(len(tokens))
    for seed in range(2000):
        counts[masked(tokenizer, tokens, seed)[0]] += 1
    share = 6 / 40
    assert np.abs(counts[1:-1] / 2000 - share).max() < 5 * np.sqrt(share * (1 - share) / 2000)


def words_of(tokens, tokenizer):
    """The positions of each word: a piece and the continuations right after it."""
    words = []
    for position, token in enumerate(tokens):
        if tokenizer.is_special[token]:
            continue
        follows = position and not tokenizer.is_special[tokens[position - 1]]
        if tokenizer.is_continuation[token] and follows:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@settings(max_examples=60)
@given(
    continuations=st.lists(st.booleans(), min_size=20, max_size=20),
    specials=st.sets(st.integers(1, 19), max_size=3),
    mask_rate=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_whole_words_are_chosen_or_left(continuations, specials, mask_rate, seed, make_tokenizer):
    tokenizer = make_tokenizer(20, is_continuation=continuations.__getitem__)
    tokens = sequence(tokenizer, 20)
    tokens[list(specials)] = tokenizer.sep_id
    positions, _ = masked(tokenizer, tokens, seed, mask_rate, whole_word=True)
    wanted = max(1, round(mask_rate * len(tokens)))
    assert len(positions) <= wanted <= math.ceil(mask_rate * len(tokens))
    chosen = set(positions.tolist())
    left = [word for word in words_of(tokens, tokenizer) if not chosen.intersection(word)]
    taken = [word for word in words_of(tokens, tokenizer) if chosen.issuperset(word)]
    assert sum(map(len, taken)) == len(chosen)
    # Nothing is left that would still have fitted.
    assert all(len(word) > wanted - len(chosen) for word in left)


def test_a_continuation_without_its_beginning_is_a_word(make_tokenizer):
    tokenizer = make_tokenizer(9, is_continuation=lambda i: i < 2)
    tokens = np.array([tokenizer.cls_id, 5, tokenizer.sep_id, 9, tokenizer.sep_id, 6], np.int32)
    chosen = {tuple(masked(tokenizer, tokens, seed, whole_word=True)[0]) for seed in range(60)}
    assert chosen == {(1,), (3,), (5,)}


def test_nothing_is_chosen_where_all_is_special(make_tokenizer):
    tokenizer = make_tokenizer(9)
    tokens = np.array([tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id, 0], np.int32)
    for whole_word in (False, True):
        positions, shown = masked(tokenizer, tokens, whole_word=whole_word)
        assert len(positions) == 0
        assert (shown == tokens).all()


@pytest.mark.parametrize("mask_rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_0_and_1_is_refused(make_tokenizer, mask_rate):
    with pytest.raises(DataError, match=r"task\.mask_rate must lie between 0 and 1"):
        Masker(make_tokenizer(9), 8, mask_rate, whole_word=False)
