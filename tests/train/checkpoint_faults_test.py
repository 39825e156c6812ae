"""What the loop makes of checkpoints that do not verify, and of another run's parameters."""

import jax
import numpy as np
import pytest

from sibert_jax.train import build, sharding
from sibert_jax.train.session import Session


def spoil(path):
    """Changes a byte in the middle of the largest file."""
    largest = max(
        (file for file in path.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


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
