"""Two processes over loopback write one checkpoint; another number of processes restores it."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import manifest, restore_params
from tests.checkpoint.conftest import ROOT
from tests.runtime.processes import free_port

SCRIPT = """
import sys
import jax

task, directory, port, count, index = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2 // int(count))
if int(count) > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sibert_jax.checkpoint import CheckpointError, Checkpoints

mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
whole = np.arange(64.0, dtype=np.float32).reshape(8, 8)


def put(array, spec):
    where = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])


def state(step):
    params = {"kernel": put(whole * step, P(None, "x")), "bias": put(whole[0], P())}
    return params, {"step": put(np.int32(step), P())}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


with Checkpoints(directory, keep=2) as checkpoints:
    if task == "save":
        for step in (1, 2, 3):
            checkpoints.save(step, *state(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        if int(count) > 1:
            description = {"not for JSON": object()} if jax.process_index() == 0 else {}
            checkpoints.save(4, *state(4), description)
            try:
                checkpoints.wait()
            except CheckpointError as error:
                print("failed:", error)
    step = checkpoints.latest_step()
    wanted = state(step)
    restored = checkpoints.restore(step, *map(abstract, wanted))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted)):
        assert a.sharding == b.sharding
        for x, y in zip(a.addressable_shards, b.addressable_shards):
            np.testing.assert_array_equal(x.data, y.data)
    print("restored", step, flush=True)
"""


def run(task, directory, count):
    """What each process printed: stdout and stderr."""
    command = [sys.executable, "-c", SCRIPT, task, str(directory), str(free_port()), str(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(i)], cwd=ROOT, **pipes) for i in range(count)]
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err) in zip(processes, outputs):
        assert process.returncode == 0, err[-3000:]
    return outputs


def test_two_processes_save_and_fail_together_and_one_restores(tmp_path):
    (first, _), (second, _) = run("save", tmp_path, count=2)
    assert "failed: the checkpoint at step 4 could not be written" in first
    assert "failed: process 0: the checkpoint at step 4 could not be written" in second
    assert [out[-11:] for out in (first, second)] == ["restored 3\n"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    assert manifest.read(tmp_path / "3").processes == 2
    shapes = {"kernel": (8, 8), "bias": (8,)}
    wanted = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    params, _ = restore_params(tmp_path, wanted)
    np.testing.assert_array_equal(params["kernel"], 3 * np.arange(64.0).reshape(8, 8))


@pytest.mark.slow
def test_one_process_saves_and_two_restore_the_newest_that_verifies(tmp_path):
    run("save", tmp_path, count=1)
    (tmp_path / "3/params/_METADATA").unlink()
    outputs = run("restore", tmp_path, count=2)
    assert all(out.endswith("restored 2\n") for out, _ in outputs)
    assert "3 is skipped: file params/_METADATA cannot be read" in outputs[0][1]
    assert "is skipped" not in outputs[1][1]
