"""Steps that are not finite, or whose loss spikes: stop, skip or roll back, as the config says."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.data import PretrainingBatches
from sibert_jax.errors import ConfigError, TrainingError
from sibert_jax.train import build, sharding
from sibert_jax.train.health import MEMORY, BadSteps, fresh_health
from sibert_jax.train.session import Session
from tests.train.metrics_rows import rows


@pytest.fixture
def poison(monkeypatch):
    """Gives the batches of some indices a weight that is not a number."""
    original, poisoned = PretrainingBatches.batch, set()

    def batch(self, step, rows):
        made = original(self, step, rows)
        if step in poisoned:
            made["masked_weights"] = made["masked_weights"] * np.float32(np.nan)
        return made

    monkeypatch.setattr(PretrainingBatches, "batch", batch)
    return poisoned.update


@pytest.fixture
def run(config):
    """One device, a checkpoint every 5 of 12 steps, a row every 2."""
    config.mesh.data = 1
    config.train.log_every_steps = 2
    return config


def started(config) -> Session:
    """A session with its compiled step; no checkpoints."""
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    return Session(run, mesh, *build.load_task(run, progress=print))


class NoCheckpoints:
    def latest_step(self):
        return None


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def judged(policy, losses, finite=True):
    """Which steps of a series of losses are bad, and the health after them."""
    health, found = fresh_health(), []
    for step, loss in enumerate(losses, start=1):
        ok = jnp.asarray(finite and np.isfinite(loss))
        bad, health = policy.judge(health, jnp.asarray(step), jnp.float32(loss), ok)
        found.append(bool(bad))
    return found, health


def test_the_running_mean_is_that_of_the_good_steps():
    policy = BadSteps("skip", 2.0, 10, 0)
    losses = [6.0, 5.0, 50.0, np.nan, 0.0, 4.0, 10.1]
    found, health = judged(policy, losses)
    assert found == [False, False, True, True, False, False, True]
    weights = (1 - 1 / MEMORY) ** np.arange(2, -1, -1)
    mean = np.average([6.0, 5.0, 4.0], weights=weights)
    assert float(health.loss_sum / health.loss_weight) == pytest.approx(mean, rel=1e-6)
    assert int(health.skipped) == 3
    assert int(health.bad_step) == -1


def test_without_a_factor_no_finite_loss_is_bad():
    assert judged(BadSteps("stop", np.inf, 0, 0), [1.0, 1e30, 3e38])[0] == [False] * 3
    assert judged(BadSteps("stop", np.inf, 0, 0), [1.0], finite=False)[0] == [True]


@pytest.mark.parametrize(("action", "first"), [("stop", 2), ("rollback", 2), ("skip", 5)])
def test_the_step_that_must_not_be_passed_is_the_first_or_one_too_many_in_a_row(action, first):
    policy = BadSteps(action, np.inf, 1, 0)
    _, health = judged(policy, [1.0, np.nan, 1.0, np.nan, np.inf, 1.0, np.nan, np.nan])
    assert int(health.bad_step) == first
    assert not np.isfinite(float(health.bad_loss))


def test_a_skipped_step_leaves_everything_as_if_its_batch_had_never_been(run, poison):
    poison({2})
    run.train.on_bad_step = "skip"
    session = started(run)
    state = session.start(NoCheckpoints())
    state, _ = session.step(state, session.batch(0))
    before = jax.device_get((state.params, state.opt_state))
    state, report = session.step(state, session.batch(2))
    assert_same(before, (state.params, state.opt_state))
    assert int(report.health.skipped) == 1
    state, report = session.step(state, session.batch(1))
    straight = session.start(NoCheckpoints())
    for index in (0, 1):
        straight, plain = session.step(straight, session.batch(index))
    assert_same((state.params, state.opt_state), (straight.params, straight.opt_state))
    # The third step starts a window: what it measured is what the second step would have.
    assert float(report.window.sums["learning_rate"]) == pytest.approx(
        float(plain.window.sums["learning_rate"]) / 2, rel=1e-2
    )
    assert np.isfinite(jax.tree.leaves(jax.device_get(report.window))).all()


@pytest.mark.slow
def test_skipped_steps_are_counted_in_finite_rows_and_too_many_stop(
    train_one, run, poison, tmp_path
):
    poison({3, 4, 5, 8})
    run.train.on_bad_step, run.train.max_skips_in_a_row = "skip", 3
    state = train_one(run, tmp_path / "run")
    assert int(state.step) == 12
    found = rows(tmp_path / "run")
    counts = {row["step"]: row["train/bad_steps"] for row in found if "train/bad_steps" in row}
    assert counts == {2: 0, 4: 1, 6: 3, 8: 3, 10: 4, 12: 4}
    assert [row["step"] for row in found if "train/loss" in row] == [2, 4, 8, 10, 12]
    assert all(np.isfinite(list(row.values())).all() for row in found)
    run.train.max_skips_in_a_row = 2
    with pytest.raises(
        TrainingError, match=r"at step 6 is not finite, after train.max_skips_in_a_row=2"
    ):
        train_one(run, tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again/checkpoints").iterdir()) == ["5"]


@pytest.mark.slow
def test_rolling_back_passes_the_data_and_survives_a_stop(
    train_one, run, poison, tmp_path, monkeypatch
):
    poison({6})  # update 7 has it; its checkpoint is that of step 5
    run.train.on_bad_step = "rollback"
    straight = train_one(run, tmp_path / "straight")
    assert int(straight.health.batch_offset) == 2
    assert int(straight.health.rollbacks) == 1
    steps = [row["step"] for row in rows(tmp_path / "straight")]
    assert steps == sorted(steps)

    session = started(run)
    state = session.start(NoCheckpoints())
    for index in (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13):
        state, _ = session.step(state, session.batch(index))
    assert_same((state.params, state.opt_state), (straight.params, straight.opt_state))

    # Stopped at step 6, just before the bad one, and at the step after going back.
    stop_at(monkeypatch, {6, 8})
    for _ in range(3):
        resumed = train_one(run, tmp_path / "stopped")
    assert_same(resumed, straight)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "straight")


def stop_at(monkeypatch, steps: set[int]):
    """Sends SIGTERM the first time that each of some steps is taken."""
    left, original = set(steps), Session.step

    def step(self, state, batch):
        state, report = original(self, state, batch)
        if (number := int(state.step)) in left:
            left.remove(number)
            os.kill(os.getpid(), signal.SIGTERM)
        return state, report

    monkeypatch.setattr(Session, "step", step)


def test_rollbacks_are_bounded_and_leave_the_checkpoints(train_one, run, poison, tmp_path):
    poison(range(2, 60))
    run.train.on_bad_step, run.train.max_rollbacks = "rollback", 2
    with pytest.raises(
        TrainingError, match=r"after train.max_rollbacks=2 rollbacks; resuming is from step 0"
    ):
        train_one(run, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["0"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("on_bad_step", "ignore", "train.on_bad_step='ignore' is unknown"),
        ("spike_factor", 1.0, "train.spike_factor=1.0 must be above 1"),
        ("max_rollbacks", -1, "train.max_rollbacks=-1 must be at least 0"),
        ("watchdog_secs", -1.0, "train.watchdog_secs=-1.0 must be at least 0"),
    ],
)
def test_a_policy_that_cannot_work_is_named(config, key, value, message):
    config.train[key] = value
    with pytest.raises(ConfigError, match=message):
        build.run_config(config)
