"""Checkpoints that do not verify or cannot be written, and the parameters of another run."""

import resource

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import CheckpointError
from sibert_jax.errors import TrainingError
from sibert_jax.train.loop import Loop
from sibert_jax.train.trainer import Trainer

pytestmark = pytest.mark.slow


def spoil(path):
    """Changes a byte in the middle of the largest file."""
    files = (file for file in path.rglob("*") if file.is_file())
    largest = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


@pytest.mark.parametrize("spoilt", [[6], [2, 4, 6]])
def test_a_rollback_passes_over_corrupt_checkpoints(
    train_one, plain, tmp_path, monkeypatch, capfd, poison, spoilt
):
    plain.train.on_bad_step, plain.checkpoint.every_steps = "rollback", 2
    plain.train.num_steps = plain.train.eval_every_steps = 9
    checkpoints, original, left = tmp_path / "run/checkpoints", Loop.roll_back, list(spoilt)

    def roll_back(loop, bad):
        loop.services.checkpoints.wait()
        while left:
            spoil(checkpoints / str(left.pop()))
        return original(loop, bad)

    poison({7})  # the batch of step 8
    monkeypatch.setattr(Loop, "roll_back", roll_back)
    names = lambda: sorted(path.name for path in checkpoints.iterdir())  # noqa: E731
    if spoilt == [6]:
        state = train_one(plain, tmp_path / "run")
        assert (int(state.step), int(state.health.batch_offset)) == (9, 4)
        assert names() == ["6", "6.corrupt", "8", "9"]
    else:
        with pytest.raises(
            TrainingError, match="at step 8 is not finite; there is no valid checkpoint"
        ):
            train_one(plain, tmp_path / "run")
        assert names() == ["2", "4", "6"]
    said = capfd.readouterr().err
    assert all(f"{checkpoints / str(step)} is skipped" in said for step in spoilt)
    assert ("rolled back to step 4, skipping the 4 batches since it" in said) == (spoilt == [6])


def test_past_corrupt_checkpoints_to_the_same_end_and_to_another_run(
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
    said = capfd.readouterr().err
    assert all(f"{checkpoints / step} is skipped: " in said for step in ("10", "12"))
    assert "Traceback" not in said
    jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["10", "10.corrupt", "12", "12.corrupt", "5"]

    config.checkpoint.init_from = str(directory)
    config.model.dropout, config.task.head, config.train.num_steps = 0.1, "invariant", 1
    # Steps too small to change anything.
    config.optim.update(name="sgd", eta_lambda=0.0, learning_rate=1e-30, weight_decay=0.0)
    config.optim.head.name = "same"
    params = train_one(config, tmp_path / "next").params
    said = capfd.readouterr().err
    assert f"parameters from {checkpoints / '12'} (step 12, commit " in said
    assert "encoder, head/output taken; head/transform fresh; model.dropout 0.0 there" in said
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], straight.params["encoder"])
    np.testing.assert_array_equal(params["head"]["output"], straight.params["head"]["output"])


def test_a_full_disk_ends_the_run_and_keeps_its_checkpoints(train_one, plain, tmp_path):
    directory, original = tmp_path / "run", Trainer.save
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(trainer, checkpoints, state, step, facts):
        if step > 5:
            checkpoints.wait()  # from here on no file may grow beyond 10 kB, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        original(trainer, checkpoints, state, step, facts)

    wrong = r"^the checkpoint at step 10 could not be written [^\n]*: \[5\]; [^\n]*$"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "save", save)
            with pytest.raises(CheckpointError, match=wrong):
                train_one(plain, directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (directory / "checkpoints/5").is_dir()
