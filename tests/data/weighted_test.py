import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, WeightedExamples


class NumberedExamples:
    """Example i holds the number of its set, its epoch and i."""

    def __init__(self, number, size, seq_len=3):
        self.number, self.size, self.seq_len = number, size, seq_len
        self.fingerprint = f"{number} {size}"

    def __len__(self):
        return self.size

    def example(self, epoch, index):
        return np.array([self.number, epoch, index], np.int32), np.zeros(3, np.int32), 0


def drawn(mixture, num_epochs=1):
    return [
        tuple(mixture.example(epoch, i)[0].tolist())
        for epoch in range(num_epochs)
        for i in range(len(mixture))
    ]


def test_without_weights_each_example_comes_once_an_epoch():
    sets = [NumberedExamples(k, size) for k, size in enumerate((7, 1, 20))]
    mixture = WeightedExamples(sets, (), seed=0)
    for epoch in range(3):
        rows = [tuple(mixture.example(epoch, i)[0].tolist()) for i in range(len(mixture))]
        assert sorted(rows) == [(k, epoch, i) for k, s in enumerate(sets) for i in range(len(s))]


def test_weights_are_exact_in_every_period():
    sets = [NumberedExamples(k, 50) for k in range(3)]
    mixture = WeightedExamples(sets, (0.5, 0.3, 0.2), seed=0)
    numbers = [number for number, _, _ in drawn(mixture)]
    for start in range(0, 150, 10):
        counts = collections.Counter(numbers[start : start + 10])
        assert counts == {0: 5, 1: 3, 2: 2}


@settings(max_examples=40)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(0, 10**12))
def test_every_stretch_has_nearly_its_share(weights, start):
    mixture = WeightedExamples([NumberedExamples(k, 9) for k in range(len(weights))], weights, 0)
    located = [mixture.locate(start + n) for n in range(200)]
    for k, weight in enumerate(weights):
        places = [place for number, place in located if number == k]
        assert places == list(range(places[0], places[0] + len(places))) if places else True
        assert abs(len(places) - 200 * weight / sum(weights)) < 2 * (k + 1)


def test_a_small_set_begins_again_and_a_large_one_goes_on():
    small, large = NumberedExamples(0, 4), NumberedExamples(1, 40)
    rows = drawn(WeightedExamples([small, large], (1, 1), seed=0), num_epochs=2)  # 44 of each
    small_rows = [row for row in rows if row[0] == 0]
    large_rows = [row for row in rows if row[0] == 1]
    assert sorted(small_rows) == [(0, epoch, i) for epoch in range(11) for i in range(4)]
    assert sorted(large_rows[:40]) == [(1, 0, i) for i in range(40)]
    assert {row[1] for row in large_rows[40:]} == {1}
    orders = {tuple(small_rows[4 * e : 4 * e + 4]) for e in range(11)}
    assert len({tuple(i for _, _, i in order) for order in orders}) > 1


def test_the_fingerprint_follows_sets_weights_and_seed():
    sets = [NumberedExamples(0, 4), NumberedExamples(1, 4)]
    fingerprints = {
        WeightedExamples(sets, (1, 1), 0).fingerprint,
        WeightedExamples(sets, (1, 2), 0).fingerprint,
        WeightedExamples(sets, (), 0).fingerprint,
        WeightedExamples(sets, (1, 1), 1).fingerprint,
        WeightedExamples(sets[::-1], (1, 1), 0).fingerprint,
    }
    assert len(fingerprints) == 5


@pytest.mark.parametrize(
    ("lengths", "weights", "complaint"),
    [
        ((3, 3), (1.0,), "1 weights were given for 2 corpora"),
        ((3, 3), (1.0, 0.0), "must be positive"),
        ((3, 3), (1.0, -1.0), "must be positive"),
        ((3, 4), (), r"several lengths: \[3, 4\]"),
        ((), (), "no examples to mix"),
    ],
)
def test_sets_and_weights_that_do_not_fit_are_refused(lengths, weights, complaint):
    sets = [NumberedExamples(k, 9, seq_len) for k, seq_len in enumerate(lengths)]
    with pytest.raises(DataError, match=complaint):
        WeightedExamples(sets, weights, seed=0)
