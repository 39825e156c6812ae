"""The outcomes of a sweep: one row per setting over its seeds, as Markdown, CSV and box plots."""

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

from sibert_jax.report.figure import COLORS, STYLE


class Outcome(NamedTuple):
    """One run: its overrides and its last evaluation."""

    overrides: dict
    metric: str
    value: float | None  # None: the run diverged


class Row(NamedTuple):
    """One setting over its seeds; a diverged run counts only in `diverged`.

    Attributes:
      setting: the overrides without the seed.
      metric: the metric; for a loss the lowest is best, otherwise the highest.
      values: the value of each finished run.
      diverged: runs whose loss was not finite.
    """

    setting: dict
    metric: str
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

    @property
    def best(self) -> float:
        return best(self.values, self.metric)

    @property
    def panel(self) -> str:
        """The label of comparable rows: the sweep's, else the config file, else the metric."""
        named = (self.setting[key] for key in ("panel", "config") if key in self.setting)
        return str(next(named, self.metric))


def best(values: Sequence[float], metric: str) -> float:
    """Returns the lowest value of a loss, otherwise the highest; NaN if there are none."""
    choose = min if "loss" in metric else max
    return choose(values) if values else math.nan


def summarise(outcomes: Sequence[Outcome]) -> list[Row]:
    """Returns one row per setting, in the order of the sweep."""
    rows: dict[tuple, Row] = {}
    for outcome in outcomes:
        setting = {key: value for key, value in outcome.overrides.items() if key != "seed"}
        key = tuple(setting.items())
        row = rows.setdefault(key, Row(setting, outcome.metric, [], 0))
        if outcome.value is None:
            rows[key] = row._replace(diverged=row.diverged + 1)
        else:
            row.values.append(outcome.value)
            rows[key] = row._replace(metric=outcome.metric)
    return list(rows.values())


def write_summary(outcomes: Sequence[Outcome], directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes sweep.md, sweep.csv and, once a run has finished, sweep.png; returns their paths."""
    rows = summarise(outcomes)
    paths = [directory / "sweep.md", directory / "sweep.csv"]
    paths[0].write_text(markdown(rows), encoding="utf-8")
    paths[1].write_text(csv_table(rows), encoding="utf-8")
    if any(row.values for row in rows):
        paths.append(directory / "sweep.png")
        draw(rows).savefig(paths[-1])
    return paths


_FIGURES = ("metric", "runs", "median", "mean ± sd", "best", "diverged")


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table, with the best median of each panel in bold."""
    keys = _keys(rows)
    lines = ["| " + " | ".join((*keys, *_FIGURES)) + " |"]
    lines.append("|" + " :-- |" * (len(keys) + 1) + " --: |" * (len(_FIGURES) - 1))
    for row in rows:
        rivals = [other.median for other in rows if other.panel == row.panel and other.values]
        median = f"{row.median:.4f}"
        figures = [
            row.metric,
            str(len(row.values)),
            f"**{median}**" if row.median == best(rivals, row.metric) else median,
            f"{row.mean:.4f}" + (f" ± {row.sd:.4f}" if len(row.values) > 1 else ""),
            f"{row.best:.4f}",
            str(row.diverged),
        ]
        lines.append("| " + " | ".join([*_setting(row, keys), *figures]) + " |")
    lines += [
        "",
        "± is the sample standard deviation over the seeds. Diverged runs are counted but",
    ]
    lines += ["not averaged.", ""]
    return "\n".join(lines)


def csv_table(rows: Sequence[Row]) -> str:
    """Returns the same numbers in full precision, and the metric of every run."""
    keys, text = _keys(rows), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ("metric", "runs", "median", "mean", "sd", "best", "diverged", "values")
    writer.writerow([*keys, *figures])
    for row in rows:
        shown = (row.metric, len(row.values), row.median, row.mean, row.sd, row.best, row.diverged)
        writer.writerow([*_setting(row, keys), *shown, " ".join(map(str, row.values))])
    return text.getvalue()


def draw(rows: Sequence[Row]) -> Figure:
    """Draws a box per setting with a dot per run, in one panel per task: see `Row.panel`."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(row.panel, []).append(row)
    heights = [0.9 + 0.42 * len(panel) for panel in panels.values()]
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(10, 0.6 + sum(heights)), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axis, (title, panel) in zip(axes, panels.items(), strict=True):
            _draw_panel(axis, title, panel)
    return figure


def _draw_panel(axis, title: str, rows: Sequence[Row]) -> None:
    one_config = len({row.setting.get("config") for row in rows}) == 1
    keys = [k for k in _keys(rows) if k != "panel" and not (k == "config" and one_config)]
    places = np.arange(len(rows))
    filled = [(place, row.values) for place, row in zip(places, rows) if row.values]
    axis.boxplot(
        [values for _, values in filled],
        positions=[place for place, _ in filled],
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        medianprops={"color": COLORS[1], "linewidth": 2},
        boxprops={"color": "#666666"},
        whiskerprops={"color": "#666666"},
        capprops={"color": "#666666"},
    )
    for place, values in filled:
        axis.plot(values, [place] * len(values), "o", color=COLORS[0], markersize=5, alpha=0.8)
    names = [", ".join(_setting(row, keys, named=True)) or "as configured" for row in rows]
    labels = [
        f"{name}  ({row.diverged} diverged)" if row.diverged else name
        for name, row in zip(names, rows)
    ]
    axis.set_yticks(places, labels)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axis.set_xlabel(next((row.metric for row in rows if row.metric), ""))


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.setting))


def _setting(row: Row, keys: Sequence[str], *, named: bool = False) -> list[str]:
    """Returns a row's values of the given keys, "" for missing ones."""
    if named:  # without the folders of paths
        found = {key.split(".")[-1]: row.setting[key] for key in keys if key in row.setting}
        return [f"{key}={str(value).rpartition('/')[2]}" for key, value in found.items()]
    return [str(row.setting[key]) if key in row.setting else "" for key in keys]
