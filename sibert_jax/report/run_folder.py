"""One run folder: its config, its metrics, and its predicted equilibrium.

Notation: η learning rate, λ weight decay, C clip factor, x the scale-invariant parameters, g their
gradient before the clip.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from sibert_jax.files import user_path
from sibert_jax.report.metrics_file import NOT_LOGGED, Series, UnreadableRun, read_metrics

# The first of these that a run has is its loss; the second is for tasks without masked tokens.
TRAIN_LOSS = ("train/mlm_loss", "train/loss")
EVAL_LOSS = ("eval/mlm_loss", "eval/loss")
EVAL_ACCURACY = ("eval/mlm_accuracy", "eval/accuracy")

PREDICTED_ROTATION = "optim/predicted_rotation"  # logged if theory predicts one

# Infinite wherever a schedule or the weight decay is 0, which is not a problem of the run.
PREDICTIONS = ("optim/clip_threshold", "optim/equilibrium_norm", "optim/equilibrium_gap")


@dataclasses.dataclass(frozen=True)
class Run:
    """Config and metrics of one run; `notes` lists omissions and irregularities."""

    path: pathlib.Path
    config: dict
    info: dict
    series: dict[str, Series]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def last_step(self) -> int:
        return max(int(s.steps[-1]) for s in self.series.values())

    @property
    def has_predictions(self) -> bool:
        """Whether the theory of SGD with weight decay applies to its optimizer."""
        return PREDICTED_ROTATION in self.series

    def setting(self, dotted_key: str) -> object:
        """Return the value of a key such as `optim.learning_rate`; None if there is no such key."""
        value: object = self.config
        for part in dotted_key.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value

    def metric(self, *keys: str) -> Series:
        """Return the series of the first of these metrics that was logged, or an empty one."""
        return next((self.series[key] for key in keys if key in self.series), NOT_LOGGED)

    def logged(self, *keys: str) -> str | None:
        """Return the first of these metrics that the run logged, or None."""
        return next((key for key in keys if key in self.series), None)


def read_run(directory: str | os.PathLike) -> Run:
    """Read a run folder.

    Args:
      directory: contains `config.json`, `metrics.jsonl` and, usually, `run.json`.

    Returns:
      The run, with a note for everything that was left out.

    Raises:
      UnreadableRun: one sentence that names the missing or unreadable file.

    Example:
      >>> read_run("no/such/run")
      Traceback (most recent call last):
      sibert_jax.report.metrics_file.UnreadableRun: no such directory: no/such/run
    """
    path = user_path(directory)
    if not path.exists():
        raise UnreadableRun(f"no such directory: {path}")
    if not path.is_dir():
        raise UnreadableRun(f"{path} is a file; expected the workdir of a run")
    for name in ("config.json", "metrics.jsonl"):
        if not (path / name).is_file():
            raise UnreadableRun(f"{path} has no {name}; expected the workdir of a run")
    config = _read_object(path / "config.json")
    info = _read_object(path / "run.json") if (path / "run.json").is_file() else {}
    series, notes = read_metrics(path / "metrics.jsonl")
    if not any(key in series for key in TRAIN_LOSS + EVAL_LOSS):
        found = ", ".join(sorted(series)[:5])
        raise UnreadableRun(
            f"{path / 'metrics.jsonl'} holds neither {TRAIN_LOSS[1]} nor {EVAL_LOSS[0]} "
            f"(found: {found}); this is not the metrics file of a training run"
        )
    return Run(path.absolute(), config, info, series, (*notes, *_non_finite(series)))


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise UnreadableRun for runs of different tasks, whose losses are not comparable."""
    tasks = {run.setting("task.name"): run for run in runs}
    if len(tasks) > 1:
        listed = "; ".join(f"{run.path / 'config.json'}: {task}" for task, run in tasks.items())
        raise UnreadableRun(
            f"the runs have different task.name ({listed}), so their losses cannot be compared; "
            "write one report for each task"
        )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Return folder names, with as many parent folders as needed to distinguish equal ones.

    Example:
      >>> paths = map(pathlib.Path, ("/a/sgd/seed1", "/a/adam/seed1", "/a/sgd/seed2"))
      >>> distinct_names([Run(path, {}, {}, {}) for path in paths])
      ['sgd/seed1', 'adam/seed1', 'seed2']
    """
    names = []
    for run in runs:
        others = [other.path.parts for other in runs if other.path != run.path]
        length = 1
        while length < len(run.path.parts) and any(
            parts[-length:] == run.path.parts[-length:] for parts in others
        ):
            length += 1
        names.append("/".join(run.path.parts[-length:]))
    return names


def _read_object(path: pathlib.Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise UnreadableRun(f"{path} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UnreadableRun(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def _non_finite(series: dict[str, Series]) -> list[str]:
    notes = []
    for key in sorted(series.keys() - set(PREDICTIONS)):
        steps, values = series[key]
        bad = steps[~np.isfinite(values)]
        if bad.size:
            notes.append(
                f"{key} is not finite in {bad.size} of {steps.size} rows, first at step {bad[0]:,}"
            )
    return notes
