"""Several real processes train as one, and end as one."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import jax
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.runtime import launch
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import train
from tests.runtime.processes import ROOT, Group, free_port
from tests.train.metrics_rows import rows


@pytest.fixture
def config(config):
    """Rates given, as finding them compiles one more program."""
    config.optim.eta_lambda, config.optim.learning_rate, config.optim.weight_decay = 0.0, 0.2, 0.02
    config.train.num_steps = 30
    config.distributed.start_timeout_secs = 120
    config.distributed.heartbeat_secs = 10
    return config


@pytest.fixture
def make_group(config, tmp_path):
    """Makes the processes of a run in a folder of tmp_path; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "run") -> Group:
            return stack.enter_context(contextlib.closing(Group(config, tmp_path / name)))

        yield make


@pytest.fixture
def group(make_group):
    return make_group()


def assert_same_run(a: pathlib.Path, b: pathlib.Path):
    """The same rows up to float rounding."""
    for left, right in zip(rows(a), rows(b), strict=True):
        assert left.keys() == right.keys()
        for name in left:
            if name != "optim/euler_residual":  # rounding is all there is to it
                assert left[name] == pytest.approx(right[name], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_two_processes_train_as_one_even_if_one_is_killed(config, group, tmp_path):
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


@pytest.mark.slow
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
        (0, r"not all of the 2 processes started within 2 s"),
        pytest.param(1, "the coordinator at .* cannot be reached wit", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_waits_for_another_in_vain_says_so(config, make_group, present, message):
    config.distributed.start_timeout_secs = 2
    group = make_group()
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
        settings = run_config(resolve(config)).distributed
        message = r"cannot listen on this port \(Address already"
        with pytest.raises(ConfigError, match=message), launch.join(settings):
            raise AssertionError


def test_an_error_in_one_process_ends_all_with_its_sentence(group):
    group.start(2, devices=1, overrides={1: ["--config.data.cache_dir=/proc/nowhere"]})
    assert group.wait() == [1, 2]
    sentence = "cannot write data.cache_dir='/proc/nowhere'"
    assert f"error (process 1 of 2): {sentence}" in group.said(1)
    assert f"the run has ended: process 1 of 2 ended it: {sentence}" in group.said(0)
    assert "Traceback" not in group.all_said()


@pytest.mark.slow
def test_other_text_in_one_process_ends_both(config, make_group, text, tmp_path):
    folders = {0: tmp_path / "a", 1: tmp_path / "b"}
    for index, folder in folders.items():
        folder.mkdir()
        (folder / "text.txt").write_text(text.read_text() + "\n\nOne document more." * index)
    config.data.path = "text.txt"
    group = make_group()
    assert group.start(2, devices=1, folders=folders).wait() == [1, 2]
    assert "process 0 and process 1 differ in data: fingerprint is" in group.said(0)


@pytest.mark.slow
def test_four_processes_stop_at_one_step_and_one_or_two_go_on(config, make_group, tmp_path):
    config.model.dropout = 0.1
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 2, 2
    group = make_group()
    group.start(4, devices=1).wait_for_checkpoint(10)
    group.processes[2].send_signal(signal.SIGTERM)
    group.processes[2].send_signal(signal.SIGTERM)
    assert group.wait() == [0, 0, 0, 0], group.all_said()
    saved = int(re.search(r"SIGTERM: saved step (\d+); run again", group.said(0))[1])
    names = [path.name for path in (group.directory / "checkpoints").iterdir()]
    assert max(int(name) for name in names if name.isdigit()) == saved < 30
    train(config, tmp_path / "alone", jax.devices()[:4])
    for count, devices in ((1, 4), (2, 2)):
        directory = tmp_path / f"on{count}"
        shutil.copytree(tmp_path / "run", directory)
        group = make_group(directory.name)
        assert group.start(count, devices).wait() == [0] * count, group.all_said()
        assert_same_run(tmp_path / "alone", directory)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        (0, "process 0, the coordinator, has not answered for 10 s"),
        (1, "process 1 of 2 has not been heard of for 10 s"),
    ],
)
def test_a_stopped_process_ends_the_other(group, stopped, message):
    group.start(2, devices=1).wait_for_checkpoint(5)
    group.processes[stopped].send_signal(signal.SIGSTOP)
    assert group.processes[1 - stopped].wait(timeout=300) != 0
    assert message in group.said(1 - stopped)


@pytest.mark.slow
def test_the_death_of_the_coordinator_ends_the_other(group):
    group.start(2, devices=1).wait_for_checkpoint(5)
    group.processes[0].send_signal(signal.SIGKILL)
    assert group.processes[1].wait(timeout=300) != 0
    assert re.search("coordinator, has exited|the leader task was preempted/died", group.said(1))


SLURM = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "environments",
    [
        {i: SLURM | {"SLURM_PROCID": str(i), "SLURM_LOCALID": "0"} for i in range(2)},
        {
            i: OPEN_MPI
            | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(i)}
            | {"OMPI_COMM_WORLD_LOCAL_RANK": "0"}
            for i in range(2)
        },
    ],
    ids=["slurm", "open_mpi"],
)
def test_processes_find_each_other_by_what_the_launcher_says(config, make_group, environments):
    config.train.num_steps = 4
    port = {"JAX_COORDINATOR_PORT": str(free_port())}
    group = make_group()
    group.start(2, devices=1, environments={i: e | port for i, e in environments.items()})
    assert group.wait() == [0, 0], group.all_said()
    assert json.loads((group.directory / "run.json").read_text())["processes"] == 2


SCATTERED = """
import sys
import jax, numpy as np
from jax.sharding import Mesh
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate")
from sibert_jax.train import sharding

class Batches:
    loaded = []
    def batch(self, step, rows):
        self.loaded.append(rows)
        return {"x": np.arange(16)[rows] + step}

# Devices of the processes alternate: the rows of each lie apart.
devices = np.array(jax.devices()).reshape(2, 4).T.reshape(8, 1, 1)
mesh = Mesh(devices, sharding.AXES)
batch = sharding.load_batch(Batches(), 100, mesh, 16)
first = 2 * int(sys.argv[2])
assert Batches.loaded == [slice(i, i + 2) for i in range(first, 16, 4)], Batches.loaded
for shard in batch["x"].addressable_shards:
    np.testing.assert_array_equal(shard.data, np.arange(16)[shard.index] + 100)

# Sorted by host, `tensor` and `fsdp` stay within one, whatever the order of the devices.
mesh = sharding.make_mesh(2, 2, 2, list(devices.flat))
for host in mesh.devices:
    assert len({device.process_index for device in host.flat}) == 1
"""


@pytest.mark.slow
def test_each_process_loads_the_rows_of_its_devices(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCATTERED, address, str(index)], env=environment, stderr=-1
        )
        for index in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
