"""Reads `metrics.jsonl` into arrays of steps and values per metric, tolerating broken lines."""

import array
import json
import pathlib
from typing import NamedTuple

import numpy as np

METRIC_GROUPS = ("train/", "eval/", "optim/", "model/", "perf/")


class UnreadableRun(ValueError):
    """Raised for a folder that is not a run or has nothing to report; names the file."""


class Series(NamedTuple):
    """One metric over a run: `steps[i]` is the step at which `values[i]` was written, ascending."""

    steps: np.ndarray
    values: np.ndarray


NOT_LOGGED = Series(np.empty(0, np.int64), np.empty(0))


def read_metrics(path: pathlib.Path) -> tuple[dict[str, Series], list[str]]:
    """Read every scalar of a metrics file; if a step was written twice, the last value wins.

    Args:
      path: a file with one JSON object per line, each with `step` and any of the metrics.

    Returns:
      The series by metric, and one sentence for everything left out or unusual.

    Raises:
      UnreadableRun: no line is a row of metrics, or a step or a metric is not a number.
    """
    steps: dict[str, array.array] = {}
    values: dict[str, array.array] = {}
    broken = []
    number = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _parse(line)
            if row is None:
                broken.append(number)
                continue
            step = _step(row, path, number)
            for key, value in row.items():
                if key.startswith(METRIC_GROUPS):
                    steps.setdefault(key, array.array("q")).append(step)
                    values.setdefault(key, array.array("d")).append(
                        _number(value, key, path, number)
                    )
    if not values:
        raise UnreadableRun(_nothing_read(path, broken))
    series = {key: _last_wins(np.array(steps[key]), np.array(values[key])) for key in values}
    return series, _broken_lines(path, broken, number)


def _parse(line: bytes) -> dict | None:
    """Return the row on a line, or None where a kill or a full disk left something else."""
    try:
        row = json.loads(line)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError
        return None
    return row if isinstance(row, dict) else None


def _step(row: dict, path: pathlib.Path, number: int) -> int:
    step = row.get("step")
    if isinstance(step, bool) or not isinstance(step, int | float) or step != step // 1 or step < 0:
        raise UnreadableRun(
            f"{path}, line {number}: `step` is {step!r}, expected a non-negative integer; this is "
            "not the metrics file of a training run"
        )
    return int(step)


def _number(value: object, key: str, path: pathlib.Path, number: int) -> float:
    """Return a metric as a float, including null (NaN) and the strings "NaN" and "Infinity"."""
    if value is None:
        return float("nan")
    try:
        return float(value)  # pyright: ignore[reportArgumentType]  a wrong type is reported below
    except (TypeError, ValueError):
        raise UnreadableRun(
            f"{path}, line {number}: {key} is {value!r}, expected a number; correct or remove the "
            "line"
        ) from None


def _last_wins(steps: np.ndarray, values: np.ndarray) -> Series:
    """Return ascending unique steps with the value written last (a resumed run repeats steps)."""
    unique, first_in_reverse = np.unique(steps[::-1], return_index=True)
    return Series(unique, values[::-1][first_in_reverse])


def _nothing_read(path: pathlib.Path, broken: list[int]) -> str:
    if broken:
        return (
            f"{path}: no line is a row of metrics (a JSON object with `step` and scalars such as "
            f"train/loss); the first unreadable line is {broken[0]}"
        )
    return (
        f"{path} holds no metrics yet; wait until the run has logged its first row "
        "(train.log_every_steps)"
    )


def _broken_lines(path: pathlib.Path, broken: list[int], last: int) -> list[str]:
    if not broken:
        return []
    if broken == [last]:
        return [f"{path.name}: the last line is incomplete (the run was killed) and was skipped"]
    which = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    return [
        f"{path.name}: {len(broken)} of {last} lines cannot be read and were skipped "
        f"(line{'s' if len(broken) > 1 else ''} {which})"
    ]
