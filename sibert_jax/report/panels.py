"""The panels of the figure; each takes an empty axis and the runs with their colors.

A line's label is its metric; a predicted line is dashed, in a darker shade of its run.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from sibert_jax.report import axis_scales
from sibert_jax.report.downsample import downsample
from sibert_jax.report.metrics_file import Series
from sibert_jax.report.run_folder import EVAL_LOSS, PREDICTED_ROTATION, TRAIN_LOSS, Run

POINTS = 200  # points per line: more are indistinguishable in a panel of 400 pixels
RATE_POINTS = 20  # rare events need more steps per point to become a rate
MOST_MARKERS = 12
DASHES = (4, 2)
PAPER_CLIP_RATE = 1.5  # percent of the steps, Li et al. 2022


@dataclasses.dataclass(frozen=True)
class RunStyle:
    """A run, and its color and marker in every panel."""

    run: Run
    color: str
    marker: str


Panel = Callable[[Axes, Sequence[RunStyle]], None]


def choose(runs: Sequence[Run]) -> list[Panel]:
    """Return the six panels; without ReLU attention, η/‖x‖² replaces dead attention rows."""
    rows_can_die = any(run.metric("model/dead_attention_rows").steps.size for run in runs)
    last = dead_attention_rows if rows_can_die else effective_learning_rate
    return [loss, weight_norm, gradient_ratio, rotation, clip_rate, last]


def loss(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw training loss thin, evaluation loss with markers, a cross where a run diverged."""
    for style in styles:
        run = style.run
        train = run.metric(*TRAIN_LOSS)
        _line(axis, style, train, run.logged(*TRAIN_LOSS), linewidth=1.0, alpha=0.75)
        evaluation = downsample(run.metric(*EVAL_LOSS), POINTS)
        axis.plot(
            evaluation.steps,
            evaluation.mean,
            label=run.logged(*EVAL_LOSS),
            color=style.color,
            marker=style.marker,
            markersize=7,
            markevery=max(1, -(-evaluation.steps.size // MOST_MARKERS)),
            markeredgecolor="white",
            markeredgewidth=0.7,
            linewidth=2.0,
            zorder=3,
        )
    masked = {"train/mlm_loss", "eval/mlm_loss", None}.issuperset(
        style.run.logged(*keys) for style in styles for keys in (TRAIN_LOSS, EVAL_LOSS)
    )
    subtitle = "train (thin), eval (markers)"
    if axis_scales.cut_high_losses(axis):
        subtitle += ", high values cut off"
    crosses = [_cross_where_diverged(axis, style) for style in styles]
    if any(crosses):
        subtitle += ", ✖ last finite loss"
    _title(
        axis,
        "Masked-token loss" if masked else "Loss",
        subtitle,
        "nats per masked token" if masked else "nats",
    )


def weight_norm(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw ‖x‖ against the norm at which gradient steps and decay balance."""
    for style in styles:
        _line(axis, style, style.run.metric("optim/param_norm"), "optim/param_norm")
        _predicted(
            axis, style, style.run.metric("optim/equilibrium_norm"), "optim/equilibrium_norm"
        )
    _title(axis, "Weight norm ‖x‖", _dashed(axis, "predicted equilibrium"), "‖x‖")
    axis_scales.linear_or_logarithmic(axis)


def gradient_ratio(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw ‖g‖/‖x‖ before the clip against the threshold √(2Cλ/η_t)."""
    for style in styles:
        _line(axis, style, style.run.metric("optim/relative_grad_norm"), "optim/relative_grad_norm")
        _predicted(axis, style, style.run.metric("optim/clip_threshold"), "optim/clip_threshold")
    _title(axis, "Gradient norm ‖g‖ / ‖x‖", _dashed(axis, "clip threshold √(2Cλ/η)"), "‖g‖ / ‖x‖")
    axis_scales.logarithmic(axis)


def rotation(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw the angle between x before and after a step against the predicted one."""
    for style in styles:
        _line(axis, style, style.run.metric("optim/rotation"), "optim/rotation")
        _predicted(axis, style, style.run.metric(PREDICTED_ROTATION), PREDICTED_ROTATION)
    _title(axis, "Rotation", _dashed(axis, "predicted"), "radians per step")
    axis_scales.logarithmic(axis)


def clip_rate(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw the share of steps at which the clip was active, with the paper's for comparison."""
    for style in styles:
        _percent(axis, style, "optim/clipped")
    _title(
        axis, "Clip rate", "fraction of steps that were clipped", "% of steps (logarithmic above 1)"
    )
    if axis.lines:
        axis_scales.percent_logarithmic_above_one(axis)
        axis.axhline(
            PAPER_CLIP_RATE, label="paper", color="#999999", linewidth=1.2, linestyle=":", zorder=1
        )
        axis.text(
            0.99,
            PAPER_CLIP_RATE,
            f"paper: {PAPER_CLIP_RATE} %",
            transform=axis.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=9,
            color="#777777",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
        )


def dead_attention_rows(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw the share of attention rows without a positive score; these attend to all keys alike."""
    for style in styles:
        _percent(axis, style, "model/dead_attention_rows")
    _title(axis, "Dead attention rows", "fraction of rows without a positive score", "% of rows")
    axis_scales.from_zero(axis)


def effective_learning_rate(axis: Axes, styles: Sequence[RunStyle]) -> None:
    """Draw η/‖x‖², the learning rate of the direction of x."""
    key = "optim/effective_learning_rate"
    for style in styles:
        _line(axis, style, style.run.metric(key), key)
    _title(axis, "Effective learning rate", "of the direction of the weights", "η / ‖x‖²")
    axis_scales.logarithmic(axis)


def _line(
    axis: Axes,
    style: RunStyle,
    series: Series,
    label: str | None,
    count: int = POINTS,
    linewidth: float = 1.8,
    alpha: float = 1.0,
    shade: bool = True,
) -> None:
    """Draw a measured line, shaded from lowest to highest row where rows were averaged."""
    points = downsample(series, count)
    if not points.steps.size:
        return
    axis.plot(
        points.steps,
        points.mean,
        label=label,
        color=style.color,
        linewidth=linewidth,
        alpha=alpha,
        marker="o" if points.steps.size == 1 else "",
        markersize=5,
    )
    if shade and not np.array_equal(points.min, points.max):
        axis.fill_between(
            points.steps, points.min, points.max, color=style.color, alpha=0.13, linewidth=0
        )


def _predicted(axis: Axes, style: RunStyle, series: Series, label: str) -> None:
    points = downsample(series, POINTS)
    if points.steps.size:
        axis.plot(
            points.steps,
            points.mean,
            label=label,
            color=tuple(0.55 * channel for channel in to_rgb(style.color)),
            linewidth=1.3,
            linestyle="--",
            dashes=DASHES,
            dash_capstyle="butt",
            marker="_" if points.steps.size == 1 else "",
            markersize=16,
            zorder=2.5,
        )


def _percent(axis: Axes, style: RunStyle, key: str) -> None:
    series = style.run.metric(key)
    percent = Series(series.steps, 100 * series.values)
    _line(axis, style, percent, key, count=RATE_POINTS, shade=False)


def _cross_where_diverged(axis: Axes, style: RunStyle) -> bool:
    """Mark the last row before the loss became nonfinite; return whether there is one."""
    train = style.run.metric(*TRAIN_LOSS)
    bad = np.flatnonzero(~np.isfinite(train.values))
    if not bad.size or bad[0] == 0:
        return bool(bad.size)
    last_finite = bad[0] - 1
    low, high = axis.get_ylim()
    axis.plot(
        train.steps[last_finite],
        min(train.values[last_finite], low + 0.96 * (high - low)),
        label="diverged",
        color=style.color,
        marker="X",
        markersize=12,
        markeredgecolor="white",
        linestyle="none",
        zorder=4,
    )
    return True


def _dashed(axis: Axes, what: str) -> str:
    """Return the subtitle, which explains dashed lines only if there are any."""
    return (
        f"solid: measured, dashed: {what}" if any(line.is_dashed() for line in axis.lines) else ""
    )


def _title(axis: Axes, title: str, subtitle: str, unit: str) -> None:
    axis.set_title(title, loc="left", fontsize=13, fontweight="bold", color="#222222", pad=22)
    axis.text(
        0, 1.02, subtitle, transform=axis.transAxes, va="bottom", fontsize=10, color="#666666"
    )
    axis.set_ylabel(unit)
    if not axis.lines:
        axis.text(
            0.5,
            0.5,
            "not logged",
            transform=axis.transAxes,
            ha="center",
            va="center",
            color="#888888",
        )
        axis.set_yticks([])
