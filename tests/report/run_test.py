import doctest
import math
import pathlib

import numpy as np
import pytest

from sibert_jax.report import run_folder as run_module
from sibert_jax.report.run_folder import Run, distinct_names, read_run

ROW = {
    "step": 10,
    "train/loss": 9.0,
    "optim/learning_rate": 0.02,
    "optim/weight_decay": 0.25,
    "optim/equilibrium_norm": 7.0,
    "optim/param_norm": 8.0,
}


def test_predicted_rotation_follows_the_rates_of_each_row(write_run):
    rows = [ROW, {**ROW, "step": 20, "optim/learning_rate": 0.005}]
    rows.append({"step": 30, "train/loss": 8.0, "optim/learning_rate": 0.005})  # no decay
    predicted = read_run(write_run("a", rows)).predicted_rotation()
    assert predicted.steps.tolist() == [10, 20]
    np.testing.assert_allclose(predicted.values, [0.1, 0.05], rtol=1e-15)


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd_sai"])
def test_other_optimizers_have_no_predictions(write_run, config, name):
    run = read_run(write_run("a", [ROW], config(optim__name=name)))
    assert run.predicted_rotation().steps.size == 0
    assert run.predicted("optim/equilibrium_norm").steps.size == 0
    assert run.metric("optim/param_norm").values.tolist() == [8.0]


def test_measurements_that_are_not_finite_are_noted(write_run):
    rows = [
        {**ROW, "optim/clip_threshold": math.inf},
        {**ROW, "step": 20, "train/loss": math.nan},
        {**ROW, "step": 30, "train/loss": math.inf},
    ]
    notes = read_run(write_run("a", rows)).notes
    assert notes == ("train/loss is not finite in 2 of 3 rows, first at step 20",)


def test_missing_run_json_is_no_fault(write_run):
    directory = write_run("a", [ROW])
    (directory / "run.json").unlink()
    assert read_run(directory).info == {}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/r/a/run", "/r/b/run", "/r/c"], ["a/run", "b/run", "c"]),
        (["/x/s/run", "/y/s/run", "/y/t/run"], ["x/s/run", "y/s/run", "t/run"]),
        (["/run", "/a/run"], ["//run", "a/run"]),
    ],
)
def test_names_take_as_many_parents_as_it_takes(paths, names):
    runs = [Run(pathlib.Path(path), {}, {}, {}) for path in paths]
    assert distinct_names(runs) == names
    assert len(set(names)) == len(names)


def test_path_is_absolute_so_that_a_dot_has_a_name(write_run, monkeypatch):
    directory = write_run("here", [ROW])
    monkeypatch.chdir(directory)
    assert read_run(".").name == "here"


def test_examples_in_the_docstrings_hold():
    flags = doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testmod(run_module, optionflags=flags)
    assert (failed, tried > 0) == (0, True)
