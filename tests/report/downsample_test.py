import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.report.downsample import downsample, steps_per_row
from sibert_jax.report.metrics_file import Series

SERIES = st.lists(
    st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3)), min_size=1, max_size=300
).map(
    lambda rows: Series(
        np.cumsum([step for step, _ in rows]), np.array([value for _, value in rows])
    )
)


def test_intervals_by_hand():
    series = Series(np.array([10, 20, 30, 40, 60]), np.array([1.0, 3.0, 5.0, 7.0, 10.0]))
    points = downsample(series, 2)  # steps 10 ... 34 and 35 ... 60
    np.testing.assert_allclose(points.steps, [20, (10 * 40 + 20 * 60) / 30])
    np.testing.assert_allclose(points.mean, [3, (10 * 7 + 20 * 10) / 30])
    np.testing.assert_array_equal(points.min, [1, 7])
    np.testing.assert_array_equal(points.max, [5, 10])
    assert steps_per_row(np.array([0, 10, 15])).tolist() == [1, 10, 5]


def test_few_rows_stay_as_is_and_those_not_finite_are_dropped():
    points = downsample(Series(np.array([10, 20, 30]), np.array([1.0, np.nan, np.inf])), 3)
    np.testing.assert_array_equal(points, [[10], [1], [1], [1]])


@settings(max_examples=40)
@given(series=SERIES, count=st.integers(1, 40))
def test_points_ascend_and_stay_within_their_rows(series, count):
    points = downsample(series, count)
    assert 1 <= points.steps.size <= count
    assert np.all(np.diff(points.steps) > 0)
    slack = 1e-9 * np.abs(series.values).max()
    assert np.all(points.min - slack <= points.mean)
    assert np.all(points.mean <= points.max + slack)
    assert points.min.min() == series.values.min()
    assert points.max.max() == series.values.max()
    whole = downsample(series, 1).mean
    by_hand = np.average(series.values, weights=np.diff(series.steps, prepend=0))
    np.testing.assert_allclose(whole, [by_hand], rtol=1e-9, atol=1e-9)
