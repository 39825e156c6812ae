"""A run that is stopped, or killed, and started again is the run that was not, bit for bit."""

import functools
import json
import pathlib
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from sibert_jax import report
from sibert_jax.errors import ConfigError
from sibert_jax.train.run import train
from tests.train.conftest import make_config
from tests.train.lives import Run, at_phase
from tests.train.metrics_rows import rows
from tests.train.started import StopAfter


@pytest.fixture(scope="module")
def finished(text, cache, tmp_path_factory, train_one):
    """The config, the workdir and the last state of a run that was left alone."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_config(shutil.copy(text, folder / "text.txt"), cache)
    config.mesh.data = 1
    config.model.update(dropout=0.1, depth=1, scan_layers=False)
    config.checkpoint.keep = 4
    # Where another run, of another configuration, was killed before its first checkpoint.
    left = config.to_dict() | {"seed": 7}
    (folder / "run/checkpoints/5.partial").mkdir(parents=True)
    (folder / "run/config.json").write_text(json.dumps(left))
    (folder / "run/metrics.jsonl").write_text('{"step": 0}\n{"step": 3}\n')
    (folder / "run/notes").write_text("of mine")
    return config, folder / "run", train_one(config, folder / "run")


@pytest.fixture
def copied(finished, tmp_path):
    """The same in a folder that may be changed."""
    config, directory, state = finished
    return config.copy_and_resolve_references(), shutil.copytree(directory, tmp_path / "run"), state


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_a_workdir_without_a_checkpoint_starts_from_scratch(finished):
    config, directory, _ = finished
    steps = [row["step"] for row in rows(directory)]
    assert steps == [0, 4, 6, 8, 12, 12]  # means every 4 steps, evaluations every 6
    assert json.loads((directory / "config.json").read_text())["seed"] == config.seed
    assert (directory / "notes").read_text() == "of mine"


def test_a_report_finds_every_metric_that_it_draws(finished):
    sources = (p.read_text() for p in pathlib.Path(report.__file__).parent.glob("*.py"))
    drawn = set(re.findall(r'"((?:optim|model)/\w+)"', "".join(sources)))
    assert drawn - set().union(*rows(finished[1])) == set()


def test_killed_and_resumed_it_is_the_straight_run(finished, tmp_path, train_one):
    config, straight, state = finished
    broken = Run(config, tmp_path / "broken")
    kill = functools.partial(at_phase, "checkpoint", 3, signal.SIGKILL)
    assert broken.finish(kill) == -signal.SIGKILL, broken.said()
    assert broken.steps_saved() in ([5], [5, 10])
    assert_same(train_one(config, broken.workdir), state)
    assert rows(broken.workdir) == rows(straight)


def test_another_configuration_is_refused_with_each_difference(copied, train_one):
    config, directory, _ = copied
    config.optim.clip_factor, config.optim.head.options = 2.0, "b2=0.98"
    message = r"optim.clip_factor: 4.0 -> 2.0; optim.head.options:  -> b2=0.98"
    with pytest.raises(ConfigError, match=message):
        train_one(config, directory)
    assert (directory / "checkpoints/12").is_dir()


def test_changed_text_is_refused(copied, train_one, tmp_path):
    config, directory, _ = copied
    path = directory / "config.json"
    changed = tmp_path / "text.txt"
    changed.write_text(pathlib.Path(config.data.path).read_text() + "\n\nOne more document.\n")
    path.write_text(path.read_text().replace(config.data.path, str(changed)))
    config.data.path = str(changed)
    with pytest.raises(ConfigError, match="the data has changed since the checkpoint"):
        train_one(config, directory)


@pytest.mark.slow
def test_resumed_on_another_mesh_it_sees_the_same_examples(config, tmp_path):
    config.mesh.update(data=4, fsdp=1, tensor=2)
    straight = train(config, tmp_path / "straight")
    assert int(train(config, tmp_path / "moved", stop=StopAfter(1)).step) == 1
    config.mesh.update(data=2, fsdp=2, tensor=2)
    moved = train(config, tmp_path / "moved")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.device_get(straight.params),
        jax.device_get(moved.params),
    )
    for a, b in zip(rows(tmp_path / "straight"), rows(tmp_path / "moved"), strict=True):
        assert a.keys() == b.keys()
        for name in ("train/loss", "eval/mlm_loss", "optim/grad_norm", "optim/clipped"):
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=1e-4)
