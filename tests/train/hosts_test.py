"""Several real processes train as one, and end as one."""

import json
import pathlib
import re
import signal
import socket

import jax
import pytest

from sibert_jax.train import build, launch
from sibert_jax.train.errors import ConfigError
from sibert_jax.train.loop import train
from tests.train.processes import Group


@pytest.fixture
def config(config):
    """Rates given, as finding them compiles one more program."""
    config.optim.eta_lambda, config.optim.learning_rate, config.optim.weight_decay = 0.0, 0.2, 0.02
    config.train.num_steps = 30
    config.distributed.start_timeout_secs = 120
    config.distributed.heartbeat_secs = 10
    return config


@pytest.fixture
def group(config, tmp_path):
    """Processes of a run in tmp_path/"run"."""
    processes = Group(config, tmp_path / "run")
    yield processes
    processes.close()


def rows(directory: pathlib.Path) -> list[dict]:
    """All metrics but the speed."""
    loaded = [json.loads(row) for row in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in loaded]


def assert_same_run(a: pathlib.Path, b: pathlib.Path):
    """The same rows up to float rounding."""
    for left, right in zip(rows(a), rows(b), strict=True):
        assert left.keys() == right.keys()
        for name in left:
            if name != "optim/euler_residual":  # rounding is all there is to it
                assert left[name] == pytest.approx(right[name], rel=1e-4, abs=1e-6), name


def test_two_processes_train_as_one_also_if_one_is_killed_on_the_way(config, group, tmp_path):
    group.start(2, devices=1).wait_for_checkpoint(10)
    group.processes[1].send_signal(signal.SIGKILL)
    status, _ = group.wait()
    assert status not in (0, None)
    assert "the run has ended: process 1 of 2 has not been heard of for 10 s" in group.said(0)
    assert "distributed.heartbeat_secs" in group.said(0)

    assert group.start(2, devices=1).wait() == [0, 0], group.all_said()
    assert re.search(r"resuming at step (10|15|20|25) of 30", group.said(0))
    assert "step" not in group.said(1)  # one process has the word
    train(config, tmp_path / "alone", jax.devices()[:2])
    assert_same_run(tmp_path / "alone", tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2


def test_other_settings_in_one_process_end_both_and_are_named(group):
    group.start(2, devices=1, overrides={1: ["--config.optim.clip_factor=2.0"]})
    assert group.wait() == [1, 2]
    sentence = (
        "process 0 and process 1 differ in settings: optim.clip_factor is 4.0 in process 0 and 2.0"
    )
    assert f"error (process 1 of 2): {sentence}" in group.said(1)
    assert sentence in group.said(0)
    assert "Traceback" not in group.all_said()
    assert not group.directory.exists()


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (0, r"not all of the 2 processes came to the start within 2 s"),
        (1, r"the coordinator at '127.0.0.1:\d+', .* cannot be reached within 2 s"),
    ],
)
def test_a_process_that_waits_for_another_in_vain_says_so(config, group, present, message):
    config.distributed.start_timeout_secs = 2
    group = Group(config, group.directory)
    group.start(2, devices=1, only=(present,))
    assert group.wait() == [2]
    assert re.match(f"error: {message}", group.said(0))
    assert "Traceback" not in group.said(0)


def test_a_port_in_use_is_named(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config.distributed.start = "explicit"
        config.distributed.num_processes = 2
        config.distributed.coordinator_address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = build.run_config(config).distributed
        message = r"cannot listen on this port \(Address already"
        with pytest.raises(ConfigError, match=message), launch.join(settings):
            raise AssertionError


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("start", "slurm", "distributed.start='slurm' is unknown; choose one of"),
        ("start", "explicit", "distributed.coordinator_address='' must be host:port"),
        ("coordinator_address", "host:1234", "distributed.start='single' takes no coordinator"),
        ("process_id", 1, "distributed.process_id=1 must be at least 0 and below .*=1"),
        ("heartbeat_secs", 0, "distributed.heartbeat_secs=0 must be at least 2"),
    ],
)
def test_settings_that_cannot_work_are_named(config, key, value, message):
    config.distributed[key] = value
    with pytest.raises(ConfigError, match=message):
        build.run_config(config)
