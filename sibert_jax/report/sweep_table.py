"""The outcomes of a sweep: one row a setting over its seeds, as Markdown, CSV and boxes."""

import csv
import io
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sibert_jax.report.figure import COLOURS, STYLE


class Outcome(NamedTuple):
    """One run: what it was given, and its last evaluation ({} if it diverged)."""

    overrides: dict
    metrics: dict


class Row(NamedTuple):
    """One setting over its seeds; a run that diverged counts in `diverged` and nowhere else.

    Attributes:
      setting: the overrides without the seed.
      values: the metric of each run that finished.
      diverged: runs whose loss was not finite.
    """

    setting: dict
    values: list[float]
    diverged: int

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n − 1); NaN for fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def best(self, metric: str) -> float:
        """The least where the metric is a loss, else the greatest."""
        choose = min if is_loss(metric) else max
        return choose(self.values) if self.values else math.nan


def is_loss(metric: str) -> bool:
    """Whether less is better."""
    return "loss" in metric


def summarise(outcomes: Sequence[Outcome], metric: str) -> list[Row]:
    """A row for each setting, in the order of the sweep.

    Raises:
      KeyError: a run that finished has no such metric.
    """
    rows: dict[tuple, Row] = {}
    for outcome in outcomes:
        setting = {key: value for key, value in outcome.overrides.items() if key != "seed"}
        row = rows.setdefault(tuple(setting.items()), Row(setting, [], 0))
        if outcome.metrics:
            row.values.append(float(outcome.metrics[metric]))
        else:
            rows[tuple(setting.items())] = row._replace(diverged=row.diverged + 1)
    return list(rows.values())


def write_summary(
    outcomes: Sequence[Outcome], metric: str, directory: pathlib.Path
) -> list[pathlib.Path]:
    """Writes sweep.md, sweep.csv and, once a run has finished, sweep.png; returns their paths."""
    names = {name for outcome in outcomes for name in outcome.metrics}
    if names and metric not in names:
        raise ValueError(f"METRIC={metric!r} is in no run; there are {sorted(names - {'step'})}.")
    rows = summarise(outcomes, metric)
    paths = [directory / "sweep.md", directory / "sweep.csv"]
    paths[0].write_text(markdown(rows, metric), encoding="utf-8")
    paths[1].write_text(csv_table(rows, metric), encoding="utf-8")
    if any(row.values for row in rows):
        paths.append(directory / "sweep.png")
        draw(rows, metric).savefig(paths[-1])
    return paths


def markdown(rows: Sequence[Row], metric: str) -> str:
    """The table with the best median in bold."""
    keys = _keys(rows)
    medians = [row.median for row in rows if row.values]
    best = (min if is_loss(metric) else max)(medians) if medians else math.nan
    lines = [f"# {metric}", "", "| " + " | ".join((*keys, *_COLUMNS)) + " |"]
    lines.append("|" + " :-- |" * len(keys) + " --: |" * len(_COLUMNS))
    for row in rows:
        median = f"{row.median:.4f}"
        figures = [
            str(len(row.values)),
            f"**{median}**" if row.median == best else median,
            f"{row.mean:.4f} ± {row.sd:.4f}",
            f"{row.best(metric):.4f}",
            str(row.diverged),
        ]
        lines.append("| " + " | ".join([*_setting(row, keys), *figures]) + " |")
    lines += ["", "± is the sample standard deviation over the seeds; diverged runs are counted,"]
    lines += ["not averaged.", ""]
    return "\n".join(lines)


_COLUMNS = ("runs", "median", "mean ± sd", "best", "diverged")


def csv_table(rows: Sequence[Row], metric: str) -> str:
    """The same figures in full, and the metric of every run."""
    keys, text = _keys(rows), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "runs", "median", "mean", "sd", "best", "diverged", metric])
    for row in rows:
        figures = (row.median, row.mean, row.sd, row.best(metric), row.diverged)
        values = " ".join(map(str, row.values))
        writer.writerow([*_setting(row, keys), len(row.values), *figures, values])
    return text.getvalue()


def draw(rows: Sequence[Row], metric: str) -> Figure:
    """A box a setting with a dot a run, a panel a config file (which is: a task)."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(str(row.setting["config"]) if "config" in row.setting else "", []).append(
            row
        )
    height = 1.2 + sum(0.9 + 0.42 * len(panel) for panel in panels.values())
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(10, height), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        ratios = [0.9 + 0.42 * len(panel) for panel in panels.values()]
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=ratios)[:, 0]
        for axis, (title, panel) in zip(axes, panels.items(), strict=True):
            _draw_panel(axis, title, panel)
        axes[-1].set_xlabel(metric)
    return figure


def _draw_panel(axis, title: str, rows: Sequence[Row]) -> None:
    keys = [key for key in _keys(rows) if key != "config"]
    places = np.arange(len(rows))
    filled = [(place, row.values) for place, row in zip(places, rows) if row.values]
    axis.boxplot(
        [values for _, values in filled],
        positions=[place for place, _ in filled],
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        medianprops={"color": COLOURS[1], "linewidth": 2},
        boxprops={"color": "#666666"},
        whiskerprops={"color": "#666666"},
        capprops={"color": "#666666"},
    )
    for place, values in filled:
        axis.plot(values, [place] * len(values), "o", color=COLOURS[0], markersize=5, alpha=0.8)
    names = ["  ".join(_setting(row, keys, named=True)) or "default" for row in rows]
    labels = [
        f"{name}  ({row.diverged} diverged)" if row.diverged else name
        for name, row in zip(names, rows)
    ]
    axis.set_yticks(places, labels)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    if title:
        axis.set_title(title, loc="left", fontsize=12, fontweight="bold")


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.setting))


def _setting(row: Row, keys: Sequence[str], *, named: bool = False) -> list[str]:
    """The values of the keys that a row has, "" for the others."""
    if named:
        return [f"{key.split('.')[-1]}={row.setting[key]}" for key in keys if key in row.setting]
    return [str(row.setting[key]) if key in row.setting else "" for key in keys]
