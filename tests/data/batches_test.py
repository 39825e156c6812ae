"""Batches are a function of the step, and their masks those of BERT."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import (
    Masker,
    PackedExamples,
    PairExamples,
    PretrainingBatches,
    Purpose,
    generator,
)

from .conftest import assert_share, make_corpus, make_tokenizer

SEQ_LEN = 16
BATCH = 4
ORDINARY = 5  # the first id that is not special
INTS = ("tokens", "segments", "masked_positions", "masked_targets", "nsp_labels")
KINDS = ("packed", "pairs")


TOKENIZER = make_tokenizer(200)
EXAMPLES = {  # ten of each kind
    "packed": PackedExamples(make_corpus([[8] * 10, [5] * 14]), SEQ_LEN, TOKENIZER),
    "pairs": PairExamples(make_corpus([[4] * 6] * 5), SEQ_LEN, TOKENIZER, seed=0),
}


def make(kind="packed", **options):
    defaults = {"global_batch_size": BATCH, "seed": 5, "mask_rate": 0.15}
    defaults |= {"whole_word": False, "shuffle": True}
    return PretrainingBatches(EXAMPLES[kind], TOKENIZER, **(defaults | options))


def restored(batch):
    """The tokens before masking, one tuple per row."""
    tokens = batch["tokens"].copy()
    row, place = np.nonzero(batch["masked_weights"])
    tokens[row, batch["masked_positions"][row, place]] = batch["masked_targets"][row, place]
    return list(map(tuple, tokens.tolist()))


def originals(examples):
    """The labels of the examples of epoch 0 by their tokens."""
    all_examples = [examples.example(0, i) for i in range(len(examples))]
    return {tuple(tokens.tolist()): label for tokens, _, label in all_examples}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_has_the_promised_arrays(kind, shuffle):
    batches = make(kind, shuffle=shuffle)
    batch = batches.batch(0)
    found = {name: array.dtype.name for name, array in batch.items()}
    floats = dict.fromkeys(("masked_weights", "example_weights"), "float32")
    assert found == dict.fromkeys(INTS, "int32") | floats | {"attention_mask": "bool"}
    for name, array in batch.items():
        tail = [batches.num_masked] if "masked" in name else [SEQ_LEN]
        assert array.shape == (BATCH, *tail * (name not in ("example_weights", "nsp_labels")))
    assert batches.num_masked == 3  # ceil(0.15 · 16)
    np.testing.assert_array_equal(batch["attention_mask"], batch["tokens"] != TOKENIZER.pad_id)
    expected = originals(EXAMPLES[kind])
    assert [expected[row] for row in restored(batch)] == batch["nsp_labels"].tolist()
    assert not TOKENIZER.is_special[batch["masked_targets"][batch["masked_weights"] > 0]].any()


def test_each_example_occurs_once_per_epoch():
    batches = make()
    rows = [row for step in range(5) for row in restored(batches.batch(step))]  # 20 = 2 epochs
    assert sorted(rows[:10]) == sorted(rows[10:]) == sorted(originals(EXAMPLES["packed"]))
    assert rows[:10] != rows[10:]
    with pytest.raises(TypeError, match="no end"):
        len(batches)


@pytest.mark.parametrize(("kind", "shuffle"), [("packed", True), ("pairs", True), ("pairs", False)])
def test_a_batch_is_a_function_of_the_step_on_any_processes(kind, shuffle):
    batches, fresh = make(kind, shuffle=shuffle), make(kind, shuffle=shuffle)
    in_order = [batches.batch(step) for step in range(3)]
    for step, share in ((2, BATCH), (0, 2), (1, 1)):
        parts = [fresh.batch(step, slice(i, i + share)) for i in range(0, BATCH, share)]
        together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        np.testing.assert_equal(together, in_order[step])


def masked_positions(batches, steps):
    found = {}
    for batch in map(batches.batch, steps):
        found |= zip(restored(batch), map(tuple, batch["masked_positions"].tolist()))
    return found


def test_masks_differ_by_epoch_and_seed_but_not_by_batch_size():
    batches = make(global_batch_size=5)  # two steps per epoch
    first, second = masked_positions(batches, (0, 1)), masked_positions(batches, (2, 3))
    assert first.keys() == second.keys()
    assert sum(first[row] != second[row] for row in first) >= 8  # 1 of 455 agrees by chance
    assert first == masked_positions(make(global_batch_size=2), range(5))
    assert first != masked_positions(make(global_batch_size=5, seed=6), (0, 1))


@pytest.mark.parametrize("size", [4, 24])
def test_evaluation_is_one_pass_filled_up_with_weight_0(size):
    batches = make(shuffle=False, global_batch_size=size)
    all_batches = [batches.batch(step) for step in range(len(batches))]
    rows = [row for batch in all_batches for row in restored(batch)][:10]
    in_order = list(originals(EXAMPLES["packed"]))
    assert sorted(rows) == sorted(in_order)
    assert rows != in_order
    weights = np.concatenate([batch["example_weights"] for batch in all_batches])
    np.testing.assert_array_equal(weights, [1] * 10 + [0] * (len(weights) - 10))
    assert not all_batches[-1]["masked_weights"][all_batches[-1]["example_weights"] == 0].any()
    assert all_batches[-1]["attention_mask"].any(axis=1).all()
    with pytest.raises(IndexError, match=f"no batch of step {len(batches)}"):
        batches.batch(len(batches))


def test_the_fingerprint_follows_every_option():
    options = [{}, {"kind": "pairs"}, {"global_batch_size": 5}, {"seed": 6}, {"mask_rate": 0.2}]
    options += [{"whole_word": True}, {"shuffle": False}]
    assert len({make(**o).fingerprint for o in options}) == len(options)
    assert make().fingerprint == make().fingerprint


def masked(tokenizer, tokens, seed=0, mask_rate=0.15, whole_word=False):
    shown = tokens.copy()
    masker = Masker(tokenizer, len(tokens), mask_rate, whole_word)
    return masker(shown, np.random.default_rng(seed)), shown


def sequence(tokenizer, num_text, num_padding=0):
    text, padding = ORDINARY + np.arange(num_text), [tokenizer.pad_id] * num_padding
    return np.array([tokenizer.cls_id, *text, tokenizer.sep_id, *padding], np.int32)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(0, 20), st.floats(0.01, 0.9), st.integers(0, 99))
def test_a_share_of_the_real_tokens_is_masked(num_text, num_padding, mask_rate, seed):
    tokenizer = make_tokenizer(60)
    tokens = sequence(tokenizer, num_text, num_padding)
    positions, shown = masked(tokenizer, tokens, seed, mask_rate)
    wanted = min(max(1, round(mask_rate * (num_text + 2))), num_text)
    assert len(positions) == wanted <= math.ceil(mask_rate * len(tokens))
    assert (np.diff(positions) > 0).all()
    assert (tokens[positions] >= ORDINARY).all()
    assert (np.delete(shown, positions) == np.delete(tokens, positions)).all()


def test_masked_tokens_are_hidden_random_or_kept_80_10_10():
    tokenizer = TOKENIZER
    tokens = sequence(tokenizer, 200)
    results = [masked(tokenizer, tokens, seed) for seed in range(400)]
    shown = np.concatenate([shown[positions] for positions, shown in results])
    original = np.concatenate([tokens[positions] for positions, _ in results])
    is_hidden, is_kept = shown == tokenizer.mask_id, shown == original
    assert_share(is_hidden, 0.8)
    assert_share(is_kept, 0.1 + 0.1 / 200)
    random = shown[~is_hidden & ~is_kept]
    assert random.min() >= ORDINARY
    assert len(set(random.tolist())) > 180  # of 200 tokens, 1,200 draws
    positions = [np.isin(np.arange(1, 201), positions) for positions, _ in results]
    assert_share(positions, 30 / 200)


def words_of(tokens, tokenizer):
    """The positions of each word: a WordPiece and the continuations right after it."""
    words = []
    for position, token in enumerate(tokens):
        if tokenizer.is_special[token]:
            continue
        if tokenizer.is_continuation[token] and not tokenizer.is_special[tokens[position - 1]]:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@settings(max_examples=30)
@given(
    continuations=st.lists(st.booleans(), min_size=20, max_size=20),
    specials=st.sets(st.integers(1, 19), max_size=3),
    mask_rate=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_words_are_masked_entirely_or_not_at_all(continuations, specials, mask_rate, seed):
    tokenizer = make_tokenizer(20, is_continuation=continuations.__getitem__)
    tokens = sequence(tokenizer, 20)
    tokens[list(specials)] = tokenizer.sep_id
    chosen = set(masked(tokenizer, tokens, seed, mask_rate, whole_word=True)[0].tolist())
    wanted = max(1, round(mask_rate * len(tokens)))
    assert len(chosen) <= wanted
    words = words_of(tokens, tokenizer)
    assert sum(len(word) for word in words if chosen.issuperset(word)) == len(chosen)
    left = [word for word in words if chosen.isdisjoint(word)]
    assert all(len(word) > wanted - len(chosen) for word in left)  # none would still fit


@pytest.mark.parametrize("whole_word", [False, True])
def test_nothing_is_masked_where_all_is_special(whole_word):
    tokenizer = make_tokenizer(9)
    tokens = np.array([tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id, 0], np.int32)
    positions, shown = masked(tokenizer, tokens, whole_word=whole_word)
    assert len(positions) == 0
    assert (shown == tokens).all()


def test_draws_are_a_function_of_their_identity():
    mask, pair = Purpose.MASK, Purpose.PAIR
    identities = [(7, mask, 3, 11), (8, mask, 3, 11), (7, pair, 3, 11), (7, mask, 4, 11)]
    identities += [(7, mask, 3, 12), (7, mask, 11, 3), (2**64 - 1, mask, 3, 11)]
    draws = [tuple(generator(*identity).random(4)) for identity in identities]
    assert len(set(draws)) == len(identities)
    assert draws[0] == tuple(generator(*identities[0]).random(4))
