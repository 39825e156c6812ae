import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.report.metrics_file import Series
from sibert_jax.report.stretches import in_stretches, window_lengths

SERIES = st.lists(
    st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3)), min_size=1, max_size=300
).map(
    lambda rows: Series(
        np.cumsum([step for step, _ in rows]), np.array([value for _, value in rows])
    )
)


def test_stretches_by_hand():
    series = Series(np.array([10, 20, 30, 40, 60]), np.array([1.0, 3.0, 5.0, 7.0, 10.0]))
    points = in_stretches(series, 2)  # steps 10 ... 34 and 35 ... 60
    np.testing.assert_allclose(points.steps, [20, (10 * 40 + 20 * 60) / 30])
    np.testing.assert_allclose(points.mean, [3, (10 * 7 + 20 * 10) / 30])
    np.testing.assert_array_equal(points.lowest, [1, 7])
    np.testing.assert_array_equal(points.highest, [5, 10])


def test_few_rows_stay_as_they_are_and_what_is_not_finite_is_left_out():
    series = Series(np.array([10, 20, 30]), np.array([1.0, np.nan, np.inf]))
    points = in_stretches(series, 3)
    for values in (points.mean, points.lowest, points.highest):
        np.testing.assert_array_equal(values, [1.0])
    np.testing.assert_array_equal(points.steps, [10])


def test_a_row_is_the_mean_over_the_steps_since_the_one_before():
    assert window_lengths(np.array([0, 10, 15])).tolist() == [1, 10, 5]


@settings(max_examples=60)
@given(series=SERIES, count=st.integers(1, 40))
def test_stretches_ascend_stay_within_their_rows_and_are_at_most_as_many_as_asked(series, count):
    points = in_stretches(series, count)
    assert 1 <= points.steps.size <= count
    assert np.all(np.diff(points.steps) > 0)
    slack = 1e-9 * np.abs(series.values).max()
    assert np.all(points.lowest - slack <= points.mean)
    assert np.all(points.mean <= points.highest + slack)
    assert points.lowest.min() == series.values.min()
    assert points.highest.max() == series.values.max()


@settings(max_examples=60)
@given(series=SERIES)
def test_one_stretch_is_the_mean_over_the_steps(series):
    points = in_stretches(series, 1)
    steps = np.concatenate([[0], series.steps])
    by_hand = sum(v * (b - a) for v, a, b in zip(series.values, steps, steps[1:])) / steps[-1]
    np.testing.assert_allclose(points.mean, [by_hand], rtol=1e-9, atol=1e-9)


def test_a_million_rows_become_two_hundred():
    steps = np.arange(1, 1_000_001)
    points = in_stretches(Series(steps, np.ones(steps.size)), 200)
    assert points.steps.size == 200
    np.testing.assert_allclose(points.mean, 1.0)
