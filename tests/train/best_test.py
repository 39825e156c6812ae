"""The best checkpoint is kept, and a run without gain ends early, killed in between or not."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import CheckpointError, chosen, steps_in
from sibert_jax.train.best import Best
from tests.train.metrics_rows import rows


@pytest.mark.parametrize(
    ("values", "lower_is_better", "wanted"),
    [
        ((0.5,), True, Best(1, 0.5, 0)),
        ((0.5, 0.4, 0.6), True, Best(2, 0.4, 1)),
        ((0.5, 0.4, 0.6), False, Best(3, 0.6, 0)),
        ((0.5, 0.5, 0.5), True, Best(1, 0.5, 2)),
        ((math.nan, 0.5, math.nan), True, Best(2, 0.5, 1)),
        ((math.nan, math.nan), False, Best(None, None, 2)),
    ],
)
def test_the_best_is_the_first_of_the_best_numbers(values, lower_is_better, wanted):
    best = Best()
    for step, value in enumerate(values, 1):
        best = best.after(step, value, lower_is_better=lower_is_better)
    assert best == wanted


@pytest.fixture
def idle(plain):
    """A run that learns nothing: its first evaluation, at step 2, stays the best."""
    plain.optim.learning_rate = 1e-30
    plain.optim.weight_decay = 0.0
    plain.train.num_steps, plain.train.eval_every_steps, plain.train.stop_after = 20, 2, 2
    plain.checkpoint.update(keep=1, keep_best=True, every_steps=100)
    return plain


def results_of(directory):
    return json.loads((directory / "results.json").read_text())


@pytest.mark.slow
def test_a_run_without_gain_ends_early_and_keeps_its_best(idle, train_one, tmp_path, capfd):
    straight = train_one(idle, tmp_path / "straight")
    assert "mlm_loss has not improved in 2 evaluations" in capfd.readouterr().err
    results = results_of(tmp_path / "straight")
    assert (results["step"], results["stopped_early"], results["best"]["step"]) == (6, True, 2)
    assert steps_in(tmp_path / "straight/checkpoints") == [2, 6]
    assert chosen(tmp_path / "straight", "best").manifest.step == 2
    assert chosen(tmp_path / "straight", 6).manifest.step == 6
    # As a run killed after step 4 leaves it: that checkpoint knows of one evaluation without gain.
    idle.train.stop_after = 1
    train_one(idle, tmp_path / "killed")
    assert steps_in(tmp_path / "killed/checkpoints") == [2, 4]
    idle.train.stop_after = 2
    resumed = train_one(idle, tmp_path / "killed")
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((straight, resumed)))
    assert results_of(tmp_path / "killed")["best"] == results["best"]
    assert steps_in(tmp_path / "killed/checkpoints") == [2, 6]
    before = rows(tmp_path / "killed")
    again = train_one(idle, tmp_path / "killed")  # ended, it stays so
    assert (int(again.step), rows(tmp_path / "killed")) == (6, before)
    shutil.rmtree(tmp_path / "killed/checkpoints/2")
    for step, message in (
        ("best", "was at step 2, whose checkpoint was not kept; .*keep_best=True"),
        ("3", r"has no checkpoint of step 3; give \"best\", or one of \[6\]"),
        ("newest", "has no checkpoint of step newest"),
    ):
        with pytest.raises(CheckpointError, match=message):
            chosen(tmp_path / "killed", step)
