"""Steps that are not finite, or whose loss spikes: stop, skip or roll back, as the config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.errors import TrainingError
from sibert_jax.train.bad_steps import MEMORY, BadSteps, fresh_health
from tests.train.metrics_rows import rows
from tests.train.started import Started, StopAfter


@pytest.fixture
def run(plain):
    """A checkpoint every 5 of 12 steps, a row every 2."""
    plain.train.log_every_steps = 2
    return plain


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def decided(policy, losses, finite=True):
    """Which steps of a series of losses are bad, and the health after them."""
    health, found = fresh_health(), []
    for step, loss in enumerate(losses, start=1):
        ok = jnp.asarray(finite and np.isfinite(loss))
        bad, health = policy.decide(health, jnp.asarray(step), jnp.float32(loss), ok)
        found.append(bool(bad))
    return found, health


def test_the_running_mean_is_that_of_the_good_steps():
    losses = [6.0, 5.0, 50.0, np.nan, 0.0, 4.0, 10.1]
    found, health = decided(BadSteps("skip", 2.0, 10, 0), losses)
    assert found == [False, False, True, True, False, False, True]
    weights = (1 - 1 / MEMORY) ** np.arange(2, -1, -1)
    mean = np.average([6.0, 5.0, 4.0], weights=weights)
    assert float(health.loss_sum / health.loss_weight) == pytest.approx(mean, rel=1e-6)
    assert int(health.skipped) == 3
    assert int(health.bad_step) == -1


def test_without_a_factor_no_finite_loss_is_bad():
    assert decided(BadSteps("stop", np.inf, 0, 0), [1.0, 1e30, 3e38])[0] == [False] * 3
    assert decided(BadSteps("stop", np.inf, 0, 0), [1.0], finite=False)[0] == [True]


@pytest.mark.parametrize(("action", "first"), [("stop", 2), ("rollback", 2), ("skip", 5)])
def test_the_run_ends_at_the_first_or_one_too_many_in_a_row(action, first):
    policy = BadSteps(action, np.inf, 1, 0)
    _, health = decided(policy, [1.0, np.nan, 1.0, np.nan, np.inf, 1.0, np.nan, np.nan])
    assert int(health.bad_step) == first
    assert not np.isfinite(float(health.bad_loss))


def test_a_skipped_batch_leaves_no_trace(run, poison):
    poison({2})
    run.train.on_bad_step = "skip"
    run = Started(run)
    state, _ = run.steps([0])
    state, report = run.steps([2, 1], state)
    assert int(report.health.skipped) == 1
    assert np.isfinite(jax.tree.leaves(jax.device_get(report.window))).all()
    straight, _ = run.steps([0, 1])
    assert_same((state.params, state.opt_state), (straight.params, straight.opt_state))


@pytest.mark.slow
def test_skipped_steps_are_counted_and_too_many_stop(train_one, run, poison, tmp_path):
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
    message = r"at step 6 is not finite, after train.max_skips_in_a_row=2"
    with pytest.raises(TrainingError, match=message):
        train_one(run, tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again/checkpoints").iterdir()) == ["5"]


@pytest.mark.slow
def test_a_rollback_passes_the_data_and_survives_a_stop(train_one, run, poison, tmp_path):
    poison({6})  # update 7 has it; its checkpoint is that of step 5
    run.train.on_bad_step = "rollback"
    straight = train_one(run, tmp_path / "straight")
    assert int(straight.health.batch_offset) == 2
    assert int(straight.health.rollbacks) == 1
    steps = [row["step"] for row in rows(tmp_path / "straight")]
    assert steps == sorted(steps)
    state, _ = Started(run).steps((0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13))
    assert_same((state.params, state.opt_state), (straight.params, straight.opt_state))
    # Stopped at step 6, just before the bad one, and at the step after going back.
    assert int(train_one(run, tmp_path / "stopped", stop=StopAfter(6)).step) == 6
    assert int(train_one(run, tmp_path / "stopped", stop=StopAfter(2)).step) == 6
    assert_same(train_one(run, tmp_path / "stopped"), straight)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["masked_weights", "attention_mask"])  # no target; no token
def test_an_empty_batch_divides_by_nothing(run, empty):
    run.task.nsp, run.model.num_segments = True, 2
    run = Started(run)
    batch, task = run.batch(0), run.shapes.task
    weights = ("masked_weights", "example_weights", empty)
    batch |= {name: jnp.zeros_like(batch[name]) for name in weights}
    state, report = run.trainer.step(run.trainer.init(run.params), batch)
    assert int(report.health.bad_step) == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))
    found = jax.device_get(jax.jit(task.eval_batch)(state.params, batch))
    assert np.isfinite(list(task.eval_metrics([found]).values())).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "poisoned", "message", "left"),
    [
        ("stop", {6}, r"at step 7 is not finite.*from step 5", "5"),
        ("rollback", range(2, 60), r"max_rollbacks=2 rollbacks; resuming is from step 0", "0"),
    ],
)
def test_a_run_that_ends_keeps_its_checkpoints(
    train_one, run, poison, tmp_path, action, poisoned, message, left
):
    poison(poisoned)
    run.train.on_bad_step, run.train.max_rollbacks = action, 2
    with pytest.raises(TrainingError, match=message):
        train_one(run, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [left]
