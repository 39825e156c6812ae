"""Weights & Biases and MLflow as metric writers; imported only if requested.

A resumed run continues the tracker's run, whose id is in `trackers.json` of the workdir. Trackers
cannot drop rows: after a rollback the rows of the same steps are added again.
"""

import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sibert_jax.errors import ConfigError
from sibert_jax.files import write_json

IDS = "trackers.json"


class Tracker(Protocol):
    """A tracker's run."""

    id: str  # the id used to continue it

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row."""

    def close(self) -> None:
        """Ends the run there."""


class WandB:
    """Weights & Biases, configured by its environment variables, such as WANDB_MODE=offline."""

    def __init__(self, directory: pathlib.Path, id_: str | None, settings: dict):
        import wandb

        self._run = wandb.init(
            dir=directory,
            id=id_,
            name=directory.name,
            config=settings,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")
        self.id = self._run.id

    def write(self, step: int, row: dict[str, float]) -> None:
        self._run.log({"step": step, **row})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI or in the SQLite file `mlflow.db` of the workdir."""

    def __init__(self, directory: pathlib.Path, id_: str | None, settings: dict):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        here = None
        if "MLFLOW_TRACKING_URI" not in os.environ:
            here = f"sqlite:///{directory.absolute()}/mlflow.db"
        self._client = MlflowClient(tracking_uri=here)
        if id_ is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "sibert_jax")
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            id_ = self._client.create_run(experiment, run_name=directory.name).info.run_id
            params = [Param(key, str(value)) for key, value in settings.items()]
            for start in range(0, len(params), 100):  # the maximum per call
                self._client.log_batch(id_, params=params[start : start + 100])
        else:
            self._client.update_run(id_, status="RUNNING")
        self.id = id_

    def write(self, step: int, row: dict[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(name, float(value), now, step) for name, value in row.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.id)


TRACKERS = {"wandb": WandB, "mlflow": MLflow}


def check_installed(names: Sequence[str]) -> None:
    """Raises ConfigError for trackers that are not installed, without importing them."""
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"train.writers names {name}, which is not installed: pip install {name}, or leave "
                "it out."
            )


def open_tracker(name: str, directory: pathlib.Path, settings: dict) -> Tracker:
    """Opens a new run of a tracker, or continues that of the workdir.

    Args:
      name: one of TRACKERS.
      directory: the workdir.
      settings: the run's flat config, {"train.num_steps": 600, ...}.

    Raises:
      ConfigError: the tracker cannot be started.
    """
    path = directory / IDS
    ids = json.loads(path.read_text()) if path.exists() else {}
    try:
        tracker = TRACKERS[name](directory, ids.get(name), settings)
    except Exception as error:  # third-party code may raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(f"train.writers: {name} cannot be started: {reason}") from error
    write_json(path, ids | {name: tracker.id})
    return tracker


class Forgiving:
    """A wrapper whose tracker's failures do not stop training: after the first, no rows are sent.

    Args:
      name: the tracker's name in the warning.
      tracker: the tracker to write to.
      warn: called with the warning.
    """

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]):
        self._name, self._tracker, self._warn = name, tracker, warn
        self._failed = False

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row."""
        self._try(lambda: self._tracker.write(step, row))

    def rewind(self, last_step: int) -> None:
        """Does nothing: trackers cannot drop rows."""
        del last_step

    def close(self) -> None:
        """Ends the run there."""
        self._try(self._tracker.close)

    def _try(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # third-party code may raise anything
            self._failed = True
            self._warn(
                f"warning: {self._name} takes no more rows ({' '.join(str(error).split())[:200]}); "
                "training continues without it, metrics.jsonl has the rows"
            )
