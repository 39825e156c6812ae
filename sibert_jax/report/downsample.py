"""Averages a long series over equal intervals of steps, to make 10⁶ rows readable as a line."""

from typing import NamedTuple

import numpy as np

from sibert_jax.report.metrics_file import Series


class Downsampled(NamedTuple):
    """The mean step and value of each interval, and the extremes of its rows."""

    steps: np.ndarray
    mean: np.ndarray
    min: np.ndarray
    max: np.ndarray


def steps_per_row(steps: np.ndarray) -> np.ndarray:
    """Returns how many steps each row averages: those since the previous row (at least 1)."""
    return np.maximum(np.diff(steps, prepend=0), 1)


def downsample(series: Series, count: int) -> Downsampled:
    """Averages a series over `count` equal intervals of steps; up to `count` rows are kept as is.

    Args:
      series: ascending steps and their values; nonfinite values are dropped.
      count: the largest number of points to return.

    Returns:
      At most `count` points; each row is weighted by the number of steps it averages.
    """
    finite = np.isfinite(series.values)
    weights = steps_per_row(series.steps)[finite].astype(float)
    steps, values = series.steps[finite], series.values[finite]
    if steps.size <= count:
        return Downsampled(steps.astype(float), values, values, values)
    interval = np.minimum((steps - steps[0]) * count // (steps[-1] - steps[0]), count - 1)
    starts = np.flatnonzero(np.diff(interval, prepend=-1))

    def weighted_mean(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(weights * x, starts) / np.add.reduceat(weights, starts)

    return Downsampled(
        weighted_mean(steps),
        weighted_mean(values),
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )
