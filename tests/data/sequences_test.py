"""Sequences, the lengths to pad to, and batches of one length each."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import (
    BucketedBatches,
    Sequences,
    WordPiece,
    choose_seq_lens,
    join_pair,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES


def make_sequences(lengths) -> Sequences:
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 99, length) for length in lengths]
    second_starts = [length - length // 3 for length in lengths]
    columns = {"labels": np.arange(len(lengths), dtype=np.int32)}
    return Sequences.of(tokens, second_starts, columns, pad_id=0)


def batches_of(lengths, seq_lens, batch_size, *, seed=0, shuffle=True):
    options = {"global_batch_size": batch_size, "seed": seed, "shuffle": shuffle}
    return BucketedBatches(make_sequences(lengths), seq_lens, **options)


def test_rows_are_the_sequences_with_padding_behind():
    sequences = make_sequences([3, 6, 4])
    rows = sequences.rows(np.array([2, 0]), 5)
    first, second = sequences.tokens[9:13], sequences.tokens[:3]
    np.testing.assert_array_equal(rows["tokens"], [[*first, 0], [*second, 0, 0]])
    np.testing.assert_array_equal(rows["attention_mask"], [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(rows["segments"], [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(rows["labels"], [2, 0])


@settings(max_examples=50)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(8, 20))
def test_a_pair_is_truncated_as_devlin_does(num_first, num_second, seq_len):
    tokenizer = WordPiece(SPECIAL_PIECES)
    first, second = np.arange(100, 100 + num_first), np.arange(200, 200 + num_second)
    tokens, second_start = join_pair(first, second, tokenizer, seq_len)
    single, no_second = join_pair(first, None, tokenizer, seq_len)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert single.tolist() == [cls, *first[: seq_len - 2], sep]
    assert no_second == len(single)
    a, b = first.tolist(), second.tolist()
    while len(a) + len(b) > seq_len - 3:  # `_truncate_seq_pair` of run_classifier.py
        (a if len(a) > len(b) else b).pop()
    assert tokens.tolist() == [cls, *a, sep, *b, sep]
    assert second_start == len(a) + 2


@settings(max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 20))
def test_no_other_lengths_cost_less(lengths, num_seq_lens, price):
    def cost(seq_lens):
        padded = sum(min(s for s in seq_lens if s >= length) for length in lengths)
        return padded + price * len(seq_lens)

    chosen = choose_seq_lens(np.array(lengths), num_seq_lens, price)
    assert list(chosen) == sorted(set(chosen))
    counts, values = range(1, num_seq_lens + 1), sorted(set(lengths))
    others = itertools.chain(*(itertools.combinations(values, count) for count in counts))
    assert cost(chosen) == min(cost(c) for c in others if c[-1] == max(lengths))


@pytest.mark.parametrize(("num_batches", "count"), [(1, 1), (60, 1), (150, 2), (500, 3), (3000, 7)])
def test_few_training_batches_have_few_lengths(num_batches, count):
    lengths = np.random.default_rng(0).integers(4, 101, 4 * num_batches)
    chosen = seq_lens_for_training(lengths, 4, num_seq_lens=8, longest=110)
    assert (len(chosen), chosen[-1]) == (count, 110)
    assert seq_lens_for_training(lengths, 4, num_seq_lens=1, longest=110) == (110,)


@pytest.mark.parametrize(("num_rows", "count"), [(1, 1), (64, 1), (65, 2), (192, 3), (5000, 8)])
def test_one_pass_has_a_length_for_each_sixteen_batches(num_rows, count):
    lengths = np.arange(num_rows) % 50 + 1
    chosen = seq_lens_for_one_pass(lengths, 4)
    assert (len(chosen), chosen[-1]) == (count, lengths.max())


@settings(max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_each_sequence_occurs_exactly_once_per_epoch(lengths, size, epoch):
    seq_lens = (5, 11, 20)
    batches = batches_of(lengths, seq_lens, size)
    seen = []
    for i in range(batches.steps_per_epoch):
        batch = batches.batch(epoch * batches.steps_per_epoch + i)
        seen += batch["labels"][batch["example_weights"] > 0].tolist()
        lengths_B = np.array(lengths)[batch["example_index"]]
        np.testing.assert_array_equal(batch["labels"], batch["example_index"])
        np.testing.assert_array_equal(batch["attention_mask"].sum(1), lengths_B)
        longest = min(s for s in seq_lens if s >= lengths_B.max())
        assert batch["tokens"].shape == (size, longest)
    assert sorted(seen) == list(range(len(lengths)))


def test_a_batch_is_a_function_of_step_and_seed():
    lengths = np.random.default_rng(1).integers(1, 20, 50)
    a, b = (batches_of(lengths, (8, 20), 8, seed=3) for _ in range(2))
    order = [12, 3, 3, 29, 0]
    for step, other in zip(order, reversed(order)):
        a.batch(other)
        whole = b.batch(step)
        np.testing.assert_equal(a.batch(step), whole)
        halves = [b.batch(step, slice(i, i + 4)) for i in (0, 4)]  # of two processes
        joined = {name: np.concatenate([half[name] for half in halves]) for name in whole}
        np.testing.assert_equal(joined, whole)
    other = batches_of(lengths, (8, 20), 8, seed=4)
    orders = [[a.batch(e * 7 + i)["labels"].tolist() for i in range(7)] for e in range(3)]
    orders.append([other.batch(i)["labels"].tolist() for i in range(7)])
    assert all(x != y for x, y in itertools.combinations(orders, 2))
    assert 0 < a.padding_share < 0.5


def test_evaluation_is_one_pass_and_has_no_batch_after_it():
    batches = batches_of(range(1, 12), (11,), 4, shuffle=False)
    weights = np.concatenate([batches.batch(i)["example_weights"] for i in range(len(batches))])
    assert (weights.sum(), len(weights)) == (11, 12)
    with pytest.raises(IndexError, match="no batch of step 3"):
        batches.batch(3)
    with pytest.raises(TypeError, match="no end"):
        len(batches_of([1], (1,), 1))


@pytest.mark.parametrize("name", ["tokens", "second_starts", "labels"])
def test_the_fingerprint_follows_every_array(name):
    sequences, same = make_sequences([3, 4]), make_sequences([3, 4])
    assert sequences.fingerprint == same.fingerprint
    (sequences.columns["labels"] if name == "labels" else getattr(sequences, name))[0] += 1
    assert sequences.fingerprint != same.fingerprint
