"""Sequences, the lengths to pad to, and batches of one length each."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sibert_jax.data import (
    BucketedBatches,
    DataError,
    Sequences,
    Tokenizer,
    choose_seq_lens,
    join_pair,
    longest_of_batches,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.tokenizer import SPECIAL_PIECES


def make_sequences(lengths, seed=0) -> Sequences:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 99, length) for length in lengths]
    second_starts = [length - length // 3 for length in lengths]
    columns = {"labels": np.arange(len(lengths), dtype=np.int32)}
    return Sequences.of(tokens, second_starts, columns, pad_id=0)


def batches_of(lengths, seq_lens, batch_size, *, seed=0, shuffle=True):
    sequences = make_sequences(lengths)
    return BucketedBatches(
        sequences, seq_lens, global_batch_size=batch_size, seed=seed, shuffle=shuffle
    )


def test_rows_are_the_sequences_with_padding_behind():
    sequences = make_sequences([3, 6, 4])
    rows = sequences.rows(np.array([2, 0]), 5)
    first, second = sequences.tokens[9:13], sequences.tokens[:3]
    np.testing.assert_array_equal(rows["tokens"], [[*first, 0], [*second, 0, 0]])
    np.testing.assert_array_equal(rows["valid"], [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(rows["segments"], [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(rows["labels"], [2, 0])


def truncated_as_devlin_does(first: list, second: list, room: int):
    """`_truncate_seq_pair` of google-research/bert, run_classifier.py."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first.pop()
        else:
            second.pop()
    return first, second


@given(st.integers(0, 12), st.integers(0, 12), st.integers(8, 20))
def test_a_pair_is_cut_as_devlin_cuts_it(num_first, num_second, seq_len):
    tokenizer = Tokenizer(SPECIAL_PIECES)
    first, second = np.arange(100, 100 + num_first), np.arange(200, 200 + num_second)
    tokens, second_start = join_pair(first, second, tokenizer, seq_len)
    a, b = truncated_as_devlin_does(first, second, seq_len - 3)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert tokens.tolist() == [cls, *a, sep, *b, sep]
    assert second_start == len(a) + 2
    single, no_second = join_pair(first, None, tokenizer, seq_len)
    assert single.tolist() == [cls, *first[: seq_len - 2], sep]
    assert no_second == len(single)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 5))
def test_no_other_lengths_pad_less(lengths, num_seq_lens):
    def cost(seq_lens):
        return sum(min(s for s in seq_lens if s >= length) for length in lengths)

    chosen = choose_seq_lens(np.array(lengths), num_seq_lens)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) <= num_seq_lens
    assert chosen[-1] == max(lengths)
    values = sorted(set(lengths))
    others = itertools.combinations(values, min(num_seq_lens, len(values)))
    assert cost(chosen) == min(cost(c) for c in others if c[-1] == max(lengths))


@given(st.lists(st.integers(1, 99), min_size=1, max_size=60), st.integers(1, 9))
def test_batches_of_sorted_sequences_are_padded_to_their_own_longest(lengths, size):
    rows = [sorted(lengths)[i : i + size] for i in range(0, len(lengths), size)]
    found = longest_of_batches(np.array(lengths), size)
    assert found.tolist() == [max(row) for row in rows]


def test_few_batches_are_padded_less_with_the_lengths_of_their_longest():
    lengths = np.random.default_rng(0).geometric(0.03, 640).clip(3, 120)
    shares = [
        batches_of(lengths, choose_seq_lens(to_pad, 8), 32).padding_share
        for to_pad in (lengths, longest_of_batches(lengths, 32))
    ]
    assert shares[1] < 0.95 * shares[0]


@pytest.mark.parametrize(
    ("num_batches", "count"), [(1, 1), (20, 1), (60, 1), (150, 2), (500, 3), (3000, 7)]
)
def test_few_batches_are_trained_on_in_few_lengths(num_batches, count):
    lengths = np.random.default_rng(0).integers(4, 101, 4 * num_batches)
    chosen = seq_lens_for_training(lengths, 4, num_seq_lens=8, longest=110)
    assert (len(chosen), chosen[-1]) == (count, 110)
    assert seq_lens_for_training(lengths, 4, num_seq_lens=1, longest=110) == (110,)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 20))
def test_each_length_saves_its_price(lengths, num_seq_lens, price):
    def cost(seq_lens):
        padded = sum(min(s for s in seq_lens if s >= length) for length in lengths)
        return padded + price * len(seq_lens)

    chosen = choose_seq_lens(np.array(lengths), num_seq_lens, price)
    counts = range(1, num_seq_lens + 1)
    values = sorted(set(lengths))
    others = itertools.chain(*(itertools.combinations(values, count) for count in counts))
    assert cost(chosen) == min(cost(c) for c in others if c[-1] == max(lengths))


@pytest.mark.parametrize(("num_rows", "count"), [(1, 1), (64, 1), (65, 2), (192, 3), (5000, 8)])
def test_what_is_read_once_has_a_length_for_each_sixteen_batches(num_rows, count):
    lengths = np.arange(num_rows) % 50 + 1
    chosen = seq_lens_for_one_pass(lengths, 4)
    assert (len(chosen), chosen[-1]) == (count, lengths.max())


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_each_sequence_comes_exactly_once_an_epoch_whatever_the_lengths(lengths, size, epoch):
    batches = batches_of(lengths, (5, 11, 20), size)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen = []
    for step in steps:
        batch = batches.batch(step)
        real = batch["example_weights"] > 0
        seen += batch["labels"][real].tolist()
        np.testing.assert_array_equal(batch["labels"], batch["example_index"])
        assert batch["tokens"].shape == (size, batch["tokens"].shape[1])
        assert batch["tokens"].shape[1] in (5, 11, 20)
        lengths_B = np.array(lengths)[batch["labels"]]
        np.testing.assert_array_equal(batch["valid"].sum(1), lengths_B)
        longest = min(s for s in (5, 11, 20) if s >= lengths_B.max())
        assert batch["tokens"].shape[1] == longest
    assert sorted(seen) == list(range(len(lengths)))


def test_a_batch_depends_on_the_step_alone_and_epochs_differ():
    lengths = np.random.default_rng(1).integers(1, 20, 50)
    a, b = (batches_of(lengths, (8, 20), 8, seed=3) for _ in range(2))
    order = [12, 3, 3, 29, 0]
    for step, other in zip(order, reversed(order)):
        a.batch(other)
        for x, y in zip(a.batch(step).values(), b.batch(step).values()):
            np.testing.assert_array_equal(x, y)
    epochs = [
        np.concatenate([a.batch(e * 7 + i)["labels"] for i in range(7)]).tolist() for e in range(3)
    ]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    other_seed = batches_of(lengths, (8, 20), 8, seed=4)
    assert other_seed.batch(0)["labels"].tolist() != a.batch(0)["labels"].tolist()


def test_hosts_get_rows_of_one_batch_with_one_length():
    batches = batches_of(np.arange(1, 41), (12, 40), 8)
    for step in range(5):
        whole = batches.batch(step)
        halves = [batches.batch(step, slice(0, 4)), batches.batch(step, slice(4, 8))]
        for name, rows in whole.items():
            np.testing.assert_array_equal(np.concatenate([h[name] for h in halves]), rows)


def test_lengths_are_mixed_over_an_epoch_and_the_padding_is_what_the_batches_hold():
    lengths = np.random.default_rng(0).geometric(0.06, 3000).clip(3, 60)
    seq_lens = choose_seq_lens(lengths, 12)
    batches = batches_of(lengths, seq_lens, 16)
    all_batches = [batches.batch(step) for step in range(batches.steps_per_epoch)]
    shapes = [batch["tokens"].shape[1] for batch in all_batches]
    assert shapes != sorted(shapes)
    valid = sum((batch["valid"] * batch["example_weights"][:, None]).sum() for batch in all_batches)
    total = sum(batch["valid"].size for batch in all_batches)
    assert batches.padding_share == pytest.approx(1 - valid / total)
    assert batches.padding_share < 0.1


def test_evaluation_is_one_pass_and_has_no_batch_after_it():
    batches = batches_of(range(1, 12), (11,), 4, shuffle=False)
    assert len(batches) == 3
    weights = np.concatenate([batches.batch(i)["example_weights"] for i in range(3)])
    assert weights.sum() == 11
    with pytest.raises(IndexError, match="no batch of step 3"):
        batches.batch(3)
    with pytest.raises(TypeError, match="no end"):
        len(batches_of([1], (1,), 1))


def test_the_fingerprint_changes_with_any_token_segment_or_label():
    def fingerprint(**changes):
        sequences = make_sequences([3, 4])
        for name, change in changes.items():
            array = sequences.columns["labels"] if name == "labels" else getattr(sequences, name)
            array[0] += change
        return sequences.fingerprint

    assert fingerprint() == fingerprint()
    prints = [fingerprint(), fingerprint(tokens=1), fingerprint(labels=1)]
    prints.append(fingerprint(second_starts=1))
    assert len(set(prints)) == 4


def test_a_sequence_that_fits_no_length_is_refused():
    with pytest.raises(DataError, match="has 9 tokens, more than the 8 of the longest batch"):
        batches_of([3, 9], (4, 8), 2)
