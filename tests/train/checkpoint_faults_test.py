"""What the loop makes of checkpoints that do not verify, and of another run's parameters."""

import jax
import numpy as np
import pytest

from sibert_jax.data import PretrainingBatches
from sibert_jax.errors import TrainingError
from sibert_jax.train import build, sharding
from sibert_jax.train.loop import Loop
from sibert_jax.train.session import Session


def spoil(path):
    """Changes a byte in the middle of the largest file."""
    largest = max(
        (file for file in path.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


def rolling_back(config, monkeypatch, checkpoints, spoilt):
    """A run whose batch 7 gives no finite loss, and whose disk has spoilt some checkpoints then."""
    config.train.on_bad_step, config.checkpoint.every_steps = "rollback", 2
    config.train.num_steps = config.train.eval_every_steps = 9
    original, left = PretrainingBatches.batch, list(spoilt)

    def batch(self, step, rows):
        made = original(self, step, rows)
        if step == 7:
            made["masked_weights"] = made["masked_weights"] * np.float32(np.nan)
        return made

    def roll_back(self, bad, original=Loop.roll_back):
        self.checkpoints.wait()
        while left:
            spoil(checkpoints / str(left.pop()))
        return original(self, bad)

    monkeypatch.setattr(PretrainingBatches, "batch", batch)
    monkeypatch.setattr(Loop, "roll_back", roll_back)


@pytest.mark.slow
def test_a_rollback_goes_past_a_corrupt_checkpoint_to_an_older_one(
    train_one, config, tmp_path, monkeypatch, capfd
):
    checkpoints = tmp_path / "run/checkpoints"
    rolling_back(config, monkeypatch, checkpoints, [6])
    state = train_one(config, tmp_path / "run")
    told = capfd.readouterr().err
    assert f"checkpoint {checkpoints / '6'} is skipped: " in told
    assert "back at step 4, past the 4 batches since it" in told
    assert (int(state.step), int(state.health.batch_offset)) == (9, 4)
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["6", "6.corrupt", "8", "9"]


@pytest.mark.slow
def test_a_rollback_without_a_checkpoint_that_verifies_ends_the_run(
    train_one, config, tmp_path, monkeypatch, capfd
):
    checkpoints = tmp_path / "run/checkpoints"
    rolling_back(config, monkeypatch, checkpoints, [2, 4, 6])
    with pytest.raises(TrainingError, match=r"at step 8 is not finite; no checkpoint verifies"):
        train_one(config, tmp_path / "run")
    told = capfd.readouterr().err
    assert [f"{checkpoints / step} is skipped" in told for step in "246"] == [True] * 3
    assert sorted(path.name for path in checkpoints.iterdir()) == ["2", "4", "6"]


@pytest.mark.slow
def test_past_corrupt_checkpoints_to_the_same_end_and_from_there_to_another_run(
    train_one, config, tmp_path, capfd
):
    directory = tmp_path / "run"
    straight = train_one(config, directory)
    checkpoints = directory / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["10", "12", "5"]
    for step in ("10", "12"):
        spoil(checkpoints / step)
    capfd.readouterr()
    resumed = train_one(config, directory)
    err = capfd.readouterr().err
    assert [f"{checkpoints / step} is skipped: " in err for step in ("10", "12")] == [True, True]
    assert "Traceback" not in err
    jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "10", "10.corrupt", "12", "12.corrupt", "5",
    ]  # fmt: skip

    config.checkpoint.init_from = str(directory)
    config.model.dropout, config.task.head = 0.1, "normalized"
    config.optim.head.name = "recipe"
    run = build.run_config(config)
    mesh = sharding.make_mesh(-1, 1, 1, jax.devices()[:1])
    params = Session(run, mesh, *build.load_task(run, progress=print))._fresh_params()
    told = capfd.readouterr().err
    assert f"parameters from {checkpoints / '12'} (step 12, commit " in told
    assert "encoder, head/output taken; head/transform fresh; model.dropout 0.0 there" in told
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], straight.params["encoder"])
    np.testing.assert_array_equal(params["head"]["output"], straight.params["head"]["output"])
