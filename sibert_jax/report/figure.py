"""The figure: six panels, one color and marker per run, measured solid and predicted dashed."""

from collections.abc import Sequence

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sibert_jax.report import axis_scales, panels
from sibert_jax.report.run_folder import Run, UnreadableRun, check_comparable, distinct_names

# Okabe and Ito's color-blind-safe palette, with gray in place of yellow, which is too pale for a
# thin line on white.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8C8C8C",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_RUNS = len(COLORS)
LEGEND_CHARACTERS = 150  # that fit on one line of the legend
LONGEST_NAME = 70

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has ‖, √, λ and η
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333",
    "lines.solid_capstyle": "round",
}


def draw(runs: Sequence[Run]) -> Figure:
    """Draw one to eight runs into one figure of 1500 × 900 pixels.

    Args:
      runs: runs from `read_run`, all of the same task.

    Returns:
      A figure without a window, which leaves matplotlib's settings unchanged; save it with
      `figure.savefig(path)`.

    Raises:
      UnreadableRun: no runs, more than eight, or runs of different tasks.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UnreadableRun(
            f"{len(runs)} runs were given, but a figure shows 1 to {MOST_RUNS}; name fewer runs"
        )
    check_comparable(runs)
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(15, 9), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.03, hspace=0.06)
        axes = figure.subplots(2, 3, sharex=True)
        styles = [
            panels.RunStyle(run, color, marker)
            for run, color, marker in zip(runs, COLORS, MARKERS, strict=False)
        ]
        for axis, panel in zip(axes.flat, panels.choose(runs), strict=True):
            panel(axis, styles)
        figure.align_ylabels(axes)
        label = axis_scales.steps(axes[0, 0], [run.last_step for run in runs])
        for axis in axes[1]:
            axis.set_xlabel(label)
        _legend(figure, styles)
        figure.supxlabel(_caption(runs), x=0.008, ha="left", fontsize=9, color="#666666")
    return figure


def _legend(figure: Figure, styles: Sequence["panels.RunStyle"]) -> None:
    names = [_shortened(name) for name in distinct_names([style.run for style in styles])]
    handles = [
        Line2D([], [], color=style.color, marker=style.marker, markersize=7, linewidth=2.2)
        for style in styles
    ]
    widest = max(map(len, names)) + 7
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=max(1, min(len(names), LEGEND_CHARACTERS // widest)),
        frameon=False,
        fontsize=11.5,
        handlelength=2.4,
        columnspacing=2.2,
    )


def _shortened(name: str) -> str:
    """Shortens a long name in the middle and escapes `$`, which would start a formula."""
    if len(name) > LONGEST_NAME:
        half = LONGEST_NAME // 2
        name = f"{name[:half]}…{name[-half:]}"
    return name.replace("$", r"\$")


def _caption(runs: Sequence[Run]) -> str:
    """Returns the caption, which explains how rows became lines."""
    rows = max(series.steps.size for run in runs for series in run.series.values())
    lines = "Each point is a row of metrics.jsonl, the mean over train.log_every_steps steps"
    if rows > panels.POINTS:
        lines = (
            f"Lines are means over 1/{panels.POINTS} of the run; shading spans the smallest to "
            "the largest row of metrics.jsonl in that part"
        )
    if rows > panels.RATE_POINTS:
        lines += f"; clip rate and dead rows are means over 1/{panels.RATE_POINTS} of the run"
    return lines + ".\nNorms are over the scale-invariant parameters; ‖g‖ is taken before the clip."
