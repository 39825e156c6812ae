"""Weights & Biases and MLflow get the rows too, if they are asked for, and can stop no training."""

import subprocess
import sys
import types
import warnings

import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import TrainConfig
from sibert_jax.train.trackers import Forgiving, check_installed, open_tracker

SETTINGS = {f"key.{i}": i for i in range(120)}


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("tensorboard", ("tensorboard",)), ("wandb, mlflow", ("wandb", "mlflow"))],
)
def test_the_names_of_writers(text, names):
    assert TrainConfig(writers=text).writer_names == names


def test_a_writer_that_is_unknown_is_refused():
    with pytest.raises(ConfigError, match=r"train.writers='wandb,comet': 'comet' is unknown; choo"):
        TrainConfig(writers="wandb,comet")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_installed(["tensorboard"])
    with pytest.raises(ConfigError, match="names wandb, which is not installed: pip install wandb"):
        check_installed(["tensorboard", "wandb"])


def test_neither_is_imported_unless_it_is_asked_for():
    script = "import sibert_jax.train.run, sys; print({'wandb', 'mlflow'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"


def test_one_that_fails_gets_no_more_rows():
    said, steps = [], []

    def write(step, row):
        steps.append(step)
        raise RuntimeError("no route to host")

    def close():
        raise AssertionError("it has failed already")

    writer = Forgiving("wandb", types.SimpleNamespace(write=write, close=close), said.append)
    for step in (1, 2):
        writer.write(step, {"train/loss": 1.0})
    writer.rewind(1)
    writer.close()
    assert steps == [1]
    assert len(said) == 1
    assert "wandb takes no more rows (no route to host); training continues" in said[0]


def write_twice(name, directory):
    """Rows of a run and of its resumption; returns both ids."""
    ids = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        for steps in ((10, 20), (30,)):
            tracker = open_tracker(name, directory, SETTINGS)
            for step in steps:
                tracker.write(step, {"train/loss": 1 / step, "eval/accuracy": 0.5})
            tracker.close()
            ids.append(tracker.id)
    return ids


@pytest.mark.slow
def test_mlflow_has_the_rows_of_a_run_and_its_resumption(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, second = write_twice("mlflow", tmp_path)
    assert first == second
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    rows = client.get_metric_history(first, "train/loss")
    assert [(row.step, row.value) for row in rows] == [(s, 1 / s) for s in (10, 20, 30)]
    assert client.get_run(first).data.params == {key: str(i) for key, i in SETTINGS.items()}
    assert client.get_run(first).info.status == "FINISHED"


@pytest.mark.slow
def test_wandb_has_the_rows_offline_under_one_id(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, second = write_twice("wandb", tmp_path)
    assert first == second
    wandb.teardown()  # has written all files
    (before, after) = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    for path in (before, after):
        assert b"eval/accuracy" in path.read_bytes()
