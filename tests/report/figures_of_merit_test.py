"""What a report computes of a run's rows: figures, and means over intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.report.downsample import downsample, steps_per_row
from sibert_jax.report.figures_of_merit import figures_of_merit
from sibert_jax.report.metrics_file import Series
from sibert_jax.report.run_folder import read_run


def test_every_figure_equals_the_one_by_hand(write_run):
    rows = [
        {
            "step": step,
            "train/loss": 10 - step / 100,
            "train/mlm_loss": 9 - step / 100,
            "train/nsp_loss": 1.0,
            "optim/param_norm": 50 + step / 10,
            "optim/equilibrium_norm": 60 + step / 10,
            "optim/clipped": clipped,
            "optim/rotation": step / 1000,
            "optim/predicted_rotation": 0.1,
            "optim/euler_residual": abs(step - 50) * 1e-9,
            "model/dead_attention_rows": step / 10_000,
            "perf/tokens_per_second": speed,
            "perf/mfu": speed / 10_000,
        }
        for step, clipped, speed in [(20, 0.5, 9), (60, 0.25, 1000), (98, 0, 2000), (100, 1, 3000)]
    ]
    rows += [
        {"step": 50, "eval/mlm_loss": 8.5, "eval/mlm_accuracy": 0.25, "eval/nsp_accuracy": 0.5},
        {"step": 100, "eval/mlm_loss": 8.75, "eval/mlm_accuracy": 0.375, "eval/nsp_accuracy": 0.75},
    ]
    figures = figures_of_merit(read_run(write_run("a", rows)))
    assert figures.steps == 100
    assert figures.tokens == 100 * 32 * 128
    assert figures.train_loss == pytest.approx((9.02 + 9.0) / 2)  # steps 98 and 100 of 100
    assert figures.train_mlm_loss == pytest.approx((8.02 + 8.0) / 2)
    assert figures.train_nsp_loss == 1.0
    assert (figures.eval_loss, figures.best_eval_loss, figures.best_eval_step) == (8.75, 8.5, 50)
    assert (figures.accuracy, figures.nsp_accuracy) == (0.375, 0.75)
    assert figures.clip_rate == pytest.approx((20 * 0.5 + 40 * 0.25 + 38 * 0 + 2 * 1) / 100)
    assert figures.weight_norm == (60.0, 70.0)
    assert figures.rotation == pytest.approx(((0.06 + 0.098) / 2, 0.1))
    assert figures.euler_residual == pytest.approx(50e-9)
    assert figures.dead_attention_rows == pytest.approx((0.0098 + 0.01) / 2)
    assert (figures.tokens_per_second, figures.mfu) == pytest.approx((1500, 0.15))


def test_what_was_not_logged_is_none_and_never_a_number(write_run, config):
    settings = config()
    del settings["data"]["seq_len"]
    figures = figures_of_merit(read_run(write_run("a", [{"step": 0, "train/loss": 9.0}], settings)))
    assert (figures.steps, figures.train_loss) == (0, 9.0)
    for name in ("tokens", "eval_loss", "best_eval_loss", "accuracy", "clip_rate", "mfu"):
        assert getattr(figures, name) is None
    assert figures.weight_norm == (None, None)
    assert figures.rotation == (None, None)


def test_tokens_of_many_lengths_are_those_seen(write_run, config):
    settings = config(data__num_seq_lens=4)
    speeds = {"perf/examples_per_second": 50.0}
    rows = [
        {"step": 10, "train/loss": 9.0, "perf/tokens_per_second": 50 * 20.0, **speeds},
        {"step": 15, "eval/loss": 9.0},
        {"step": 40, "train/loss": 9.0, "perf/tokens_per_second": 50 * 100.5, **speeds},
    ]
    figures = figures_of_merit(read_run(write_run("a", rows, settings)))
    assert figures.tokens == 32 * (10 * 20 + 30 * 100.5)
    slower = [{k: v for k, v in row.items() if k not in speeds} for row in rows]
    assert figures_of_merit(read_run(write_run("b", slower, settings))).tokens is None


def test_diverged_run_keeps_its_best_evaluation(write_run):
    rows = [
        {"step": 50, "train/loss": 9.0, "eval/mlm_loss": 8.0},
        {"step": 98, "train/loss": 9.0, "eval/mlm_loss": math.nan},
        {"step": 99, "train/loss": 9.0, "eval/mlm_loss": math.inf},
        {"step": 100, "train/loss": math.nan},
    ]
    figures = figures_of_merit(read_run(write_run("a", rows)))
    assert math.isnan(figures.train_loss)
    assert figures.eval_loss == math.inf
    assert (figures.best_eval_loss, figures.best_eval_step) == (8.0, 50)


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


ROWS = st.lists(st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3)), min_size=1, max_size=300)


@settings(max_examples=30)
@given(ROWS, st.integers(1, 40))
def test_points_ascend_and_stay_within_their_rows(rows, count):
    steps, values = np.transpose(rows)
    series = Series(np.cumsum(steps), values)
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
