"""A run that is killed and started again is the run that was not, bit for bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from sibert_jax.train.session import Session

from sibert_jax.checkpoint import restore_params
from sibert_jax.errors import ConfigError
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.train import build, sharding
from sibert_jax.train.run import train
from tests.train.metrics_rows import rows

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
import ml_collections
from sibert_jax.train.run import train
train(ml_collections.ConfigDict(json.load(open(sys.argv[1]))), sys.argv[2])
"""


@pytest.fixture
def start(config, tmp_path):
    """Starts a run in a process of its own; its messages go to a file."""

    def start(directory, messages):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config.to_dict()))
        command = [sys.executable, "-c", SCRIPT, str(path), str(directory)]
        with messages.open("w") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=file
            )

    return start


def wait_for(condition, process, messages, seconds=120):
    for _ in range(seconds * 100):
        if condition():
            return
        assert process.poll() is None, messages.read_text()
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.slow
def test_killed_or_terminated_anywhere_and_resumed_is_the_straight_run(config, start, tmp_path):
    config.train.num_steps = 40
    config.task.nsp, config.model.num_segments = True, 2
    config.model.dropout = 0.1
    config.checkpoint.every_steps = 7
    config.mesh.data = 1
    straight, broken, messages = tmp_path / "straight", tmp_path / "broken", tmp_path / "messages"
    uninterrupted = start(straight, tmp_path / "messages_straight")

    killed = start(broken, messages)
    wait_for(lambda: (broken / "checkpoints/14").is_dir(), killed, messages)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL

    terminated = start(broken, messages)
    wait_for(lambda: (broken / "checkpoints/28").is_dir(), terminated, messages)
    terminated.send_signal(signal.SIGTERM)
    terminated.send_signal(signal.SIGTERM)
    assert terminated.wait() == 0, messages.read_text()
    if "run again to resume" in messages.read_text():
        steps = [int(path.name) for path in (broken / "checkpoints").iterdir()]
        assert f"SIGTERM: saved step {max(steps)};" in messages.read_text()

    assert start(broken, messages).wait() == 0, messages.read_text()
    assert uninterrupted.wait() == 0
    assert rows(broken) == rows(straight)
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    session = Session(run, mesh, *build.load_task(run, progress=print))
    (a, step_a), (b, step_b) = (
        restore_params(directory / "checkpoints", session.abstract_params)
        for directory in (straight, broken)
    )
    assert step_a == step_b == 40
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 2, 2), (8, 1, 1), (2, 4, 1)])
def test_a_run_resumed_on_another_mesh_sees_the_same_examples(config, tmp_path, mesh):
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 4, 1, 2
    config.train.num_steps = 12
    straight = train(config, tmp_path / "straight")
    stop_after_one_step(train, config, tmp_path / "moved")
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
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


def stop_after_one_step(train, config, directory):
    """Asks the loop to stop by a signal that comes before the first step."""
    original = StopRequest.defer

    def defer(self):
        original(self)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "defer", defer)
        state = train(config, directory)
    assert int(state.step) == 1


def test_another_configuration_is_refused_with_the_difference(train_one, config, tmp_path):
    stop_after_one_step(train_one, config, tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    config.optim.clip_factor = 2.0
    with pytest.raises(ConfigError, match=r"optim.clip_factor: 4.0 -> 2.0"):
        train_one(config, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == before


def test_changed_text_is_refused(train_one, config, text, tmp_path):
    copy = tmp_path / "text.txt"
    copy.write_text(text.read_text())
    config.data.path = str(copy)
    stop_after_one_step(train_one, config, tmp_path / "run")
    copy.write_text(text.read_text() + "\n\nOne more paragraph, of another document than before.\n")
    with pytest.raises(ConfigError, match="the data has changed since the checkpoint"):
        train_one(config, tmp_path / "run")
