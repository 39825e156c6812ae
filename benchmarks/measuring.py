"""Shared by all benchmarks: measuring in turn, rows, table, picture, description of the machine."""

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax

from sibert_jax.runtime.provenance import git_commit

Speeds = dict[str, list[float]]


class Row(NamedTuple):
    """One contestant's figures.

    Attributes:
      group: contestants are compared within it, such as those of one size of model; "": one group.
      name: the contestant.
      median: over the repeats, in the unit of the result.
      least: of the repeats.
      greatest: of the repeats.
      ratio: the median over the repeats of this value over the baseline's in the same repeat.
      least_ratio: the least of these ratios.
      greatest_ratio: the greatest.
      more: further columns by name, which may carry their unit.
    """

    group: str
    name: str
    median: float
    least: float
    greatest: float
    ratio: float
    least_ratio: float
    greatest_ratio: float
    more: dict[str, float]


class Result(NamedTuple):
    """The findings of one benchmark.

    Attributes:
      title: what was measured, at what sizes.
      unit: of the values.
      more_is_better: whether a longer bar is a better one.
      baseline: what the ratios are to, as a column's heading says it.
      rows: of all groups, those of a group together.
      notes: sentences below the table.
    """

    title: str
    unit: str
    more_is_better: bool
    baseline: str
    rows: list[Row]
    notes: list[str]


def in_turn(timed: dict[str, Callable[[], float]], repeats: int) -> Speeds:
    """Measures every contestant once a repeat, so that a busy machine is busy for all of them.

    Each second repeat goes backwards, so that the order favours none.

    Args:
      timed: name to a function that measures once and returns the value.
      repeats: of each.

    Returns:
      The values of all repeats by name.
    """
    values = {name: [] for name in timed}
    for repeat in range(repeats):
        for name in list(timed)[:: -1 if repeat % 2 else 1]:
            values[name].append(timed[name]())
            say(f"repeat {repeat + 1}/{repeats}: {name}: {number(values[name][-1])}")
    return values


def rows(
    values: Speeds, baseline: str, group: str = "", more: dict[str, dict[str, float]] | None = None
) -> list[Row]:
    """Medians and ranges of what `in_turn` returned.

    Args:
      values: as many for each name.
      baseline: the name that the ratios are to.
      group: of all these rows.
      more: further columns of some of the names.
    """
    against, more = values[baseline], more or {}
    return [
        Row(
            group,
            name,
            *median_and_range(all_),
            *median_and_range([value / other for value, other in zip(all_, against, strict=True)]),
            more.get(name, {}),
        )
        for name, all_ in values.items()
    ]


def median_and_range(values: list[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return float(statistics.median(values)), float(min(values)), float(max(values))


def table(result: Result) -> str:
    """The rows as a Markdown table, with the notes below it."""
    columns = list(dict.fromkeys(name for row in result.rows for name in row.more))
    grouped = any(row.group for row in result.rows)
    heading = ["size"] * grouped + ["", f"{result.unit} (least–greatest)", f"of {result.baseline}"]
    lines = [
        "| " + " | ".join(heading + columns) + " |",
        "|" + " --- |" * (1 + grouped) + " ---: |" * (2 + len(columns)),
    ]
    for row in result.rows:
        cells = [row.group] * grouped + [
            row.name,
            f"{number(row.median)} ({number(row.least)}–{number(row.greatest)})",
            f"{row.ratio:.3f} ({row.least_ratio:.3f}–{row.greatest_ratio:.3f})",
            *(number(row.more[name]) if name in row.more else "" for name in columns),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(f"\n{note}" for note in result.notes)])


def number(value: float) -> str:
    """A value to three digits or so: 12,345 · 12.3 · 1.23 · 0.123."""
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def draw(result: Result, path: pathlib.Path) -> None:
    """Writes a PNG: a bar from zero to each median, a whisker from the least to the greatest."""
    import matplotlib.figure

    groups = list(dict.fromkeys(row.group for row in result.rows))
    counts = [sum(row.group == group for row in result.rows) for group in groups]
    size = (9, 1.0 + sum(0.3 * count + 0.45 for count in counts))
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[n + 1 for n in counts])
    for group, panel in zip(groups, panels[:, 0]):
        bars = [row for row in result.rows if row.group == group]
        whiskers = [
            [row.median - row.least for row in bars],
            [row.greatest - row.median for row in bars],
        ]
        colours = ["0.6" if row.ratio == 1 else "tab:blue" for row in bars]
        drawn = panel.barh(
            [row.name for row in bars],
            [row.median for row in bars],
            xerr=whiskers,
            color=colours,
            ecolor="0.2",
            height=0.7,
        )
        panel.bar_label(drawn, [f" {number(row.median)}" for row in bars], padding=4, fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.set_title(group, fontsize=9, loc="left")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    better = "more" if result.more_is_better else "less"
    panels[-1, 0].set_xlabel(f"{result.unit}, {better} is better", fontsize=9)
    figure.suptitle(result.title, fontsize=10, wrap=True)
    figure.savefig(path, dpi=150)


def machine() -> dict[str, str | int | float]:
    """Versions, commit, devices, cores and the load before anything is measured."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sibert_jax")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "commit": git_commit(),
        "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
        "processor": _processor(),
        "cores": num_cores(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def write(folder: pathlib.Path, name: str, result: Result, found: dict) -> None:
    """Writes NAME.json, NAME.md and NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row._asdict() for row in result.rows]
    written = {"benchmark": name, "machine": found} | result._asdict() | {"rows": rows}
    text = json.dumps(written, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
    on = " · ".join(f"{key} {value}" for key, value in found.items())
    picture = f"\n![{result.title}]({name}.png)\n" if result.rows else ""
    page = f"# {result.title}\n\n{table(result)}\n{picture}\n{on}\n"
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
    if result.rows:
        draw(result, folder / f"{name}.png")


say = functools.partial(print, file=sys.stderr, flush=True)
