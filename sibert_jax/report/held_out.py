"""Scores on held-out sets from results.json: tables, and a figure of confusion matrices."""

import dataclasses
import json
import math
from collections.abc import Sequence

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sibert_jax.report.figure import STYLE
from sibert_jax.report.run_folder import Run, UnreadableRun, distinct_names

MOST_MATRICES = 6
MOST_ROWS = 50  # classes in a table
MOST_NUMBERS = 12  # classes whose counts are written into the matrix
MOST_LABELS = 40  # classes whose names fit beside it
LONGEST_LABEL = 24


@dataclasses.dataclass(frozen=True)
class HeldOutScores:
    """One held-out set of a run.

    Attributes:
      run: name of the run.
      name: name of the set.
      scores: metric -> value.
      classes: class -> {"precision", "recall", "f1", "examples"}; {} if there are none.
      confusion: (C, C) counts, one row per true class; None if there is none.
    """

    run: str
    name: str
    scores: dict[str, float]
    classes: dict[str, dict[str, float]]
    confusion: np.ndarray | None


def read_held_out(runs: Sequence[Run]) -> list[HeldOutScores]:
    """Read the held-out scores of the finished runs.

    Raises:
      UnreadableRun: a results.json cannot be read.
    """
    found = []
    for run, run_name in zip(runs, distinct_names(runs)):
        path = run.path / "results.json"
        if not path.is_file():
            continue
        try:
            sets = json.loads(path.read_bytes())["held_out"].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableRun(f"{path} holds no results ({error!r})") from None
        for name, values in sets:
            scores = {k: v for k, v in values.items() if isinstance(v, (int, float))}
            scores.pop("examples_per_second", None)
            counts = values.get("confusion")
            matrix = None if counts is None else np.array(counts)
            found.append(HeldOutScores(run_name, name, scores, values.get("classes", {}), matrix))
    return [one for one in found if one.scores]


def tables(found: Sequence[HeldOutScores]) -> str:
    """Return Markdown tables of the scores per set and per class; "" if there are no sets."""
    if not found:
        return ""
    names = list(dict.fromkeys(name for one in found for name in one.scores))
    rows = [
        [one.run, one.name, *(_number(one.scores.get(name)) for name in names)] for one in found
    ]
    parts = ["## Held-out sets\n", _table(["run", "set", *names], rows)]
    for one in found:
        if not one.classes:
            continue
        columns = ("precision", "recall", "f1", "examples")
        rows = [
            [label, *(_number(figures[column]) for column in columns)]
            for label, figures in list(one.classes.items())[:MOST_ROWS]
        ]
        values = [list(map(one.classes[c].get, columns[:3])) for c in one.classes]
        mean = np.mean(values, axis=0)
        total = sum(figures["examples"] for figures in one.classes.values())
        rows.append(["*mean; total*", *map(_number, mean.tolist()), _number(total)])
        parts += [f"### {one.run}: {one.name}\n", _table(["class", *columns], rows)]
        if len(one.classes) > MOST_ROWS:
            parts.append(f"Only the first {MOST_ROWS} of {len(one.classes)} classes are shown.\n")
    if any(one.confusion is not None for one in found):
        parts.append("![Confusion matrices](confusion.png)\n")
    return "\n".join(parts)


def draw_confusion(found: Sequence[HeldOutScores]) -> Figure | None:
    """Draw the first six confusion matrices; None if there are none.

    A row is a true class, a column the predicted one; the color is the share of the row.
    """
    shown = [one for one in found if one.confusion is not None][:MOST_MATRICES]
    if not shown:
        return None
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    with matplotlib.style.context(STYLE | {"axes.grid": False}, after_reset=True):
        figure = Figure(figsize=(6.4 * columns, 5.8 * rows), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        for axis, one in zip(axes, shown):
            _matrix(axis, one)
    return figure


def _matrix(axis, one: HeldOutScores) -> None:
    counts = one.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    axis.set_title(_plain(f"{one.run}: {one.name}", 60), fontsize=11.5, loc="left")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    places = range(len(counts)) if len(counts) <= MOST_LABELS else []
    labels = [_plain(label, LONGEST_LABEL) for label in one.classes][: len(places)]
    small = 10 if len(counts) <= MOST_NUMBERS else 7
    axis.set_xticks(places, labels, rotation=90 if max(map(len, labels), default=0) > 6 else 0)
    axis.set_yticks(places, labels)
    axis.tick_params(length=0, labelsize=small)
    axis.spines[:].set_visible(False)
    if len(counts) <= MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            color = "white" if shares[i, j] > 0.5 else "#333333"
            axis.text(j, i, f"{count:,}", ha="center", va="center", color=color, fontsize=small)


def _plain(text: str, longest: int) -> str:
    """Shorten a text and escape `$`, which would start a formula."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    numbers = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], numbers, *cells[1:])) + "\n"
