"""The loop computes a step twice when that is due, and tells the watchdog of every phase."""

import jax
import numpy as np
import pytest

from sibert_jax.runtime import goodput, replay
from sibert_jax.runtime.watchdog import Watchdog
from sibert_jax.train.run import train
from tests.train.metrics_rows import rows

pytestmark = pytest.mark.slow


def test_two_runs_on_one_mesh_have_the_same_bits(config, tmp_path, monkeypatch):
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 2, 2, 2
    config.train.num_steps, config.checkpoint.every_steps = 6, 6
    config.train.eval_every_steps = 0
    first = jax.device_get(train(config, tmp_path / "first"))
    config.train.replay_every_steps = 3
    replayed, original = [], replay.step_twice

    def noted(step, state, batch):
        replayed.append(int(state.step) + 1)
        return original(step, state, batch)

    monkeypatch.setattr(replay, "step_twice", noted)
    second = jax.device_get(train(config, tmp_path / "second"))
    assert replayed == [3, 6]
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert rows(tmp_path / "first") == rows(tmp_path / "second")


def test_the_watchdog_is_told_of_every_phase(train_one, plain, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Watchdog, "expect", lambda self, phase: told.append(phase))
    train_one(plain, tmp_path / "run")
    assert set(told) == set(goodput.PHASES) - {"restore", "other"}
    assert told.count("input") == plain.train.num_steps
    del told[:]
    train_one(plain, tmp_path / "run")
    assert "restore" in told
