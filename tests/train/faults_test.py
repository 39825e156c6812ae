"""Faults of disks, of hardware and of people, and batches with nothing in them."""

import errno
import json
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sibert_jax.train.session import Session

from sibert_jax.errors import FaultError
from sibert_jax.runtime import goodput
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.watchdog import Watchdog
from sibert_jax.train import build, replay, sharding, writers
from sibert_jax.train.step import Step
from tests.train.bad_steps_test import NoCheckpoints, assert_same, rows


class FullDisk:
    """A file that takes some bytes more and then none, as long as `full`."""

    def __init__(self, file):
        self.file, self.full, self.room = file, False, 10

    def write(self, data):
        if not self.full:
            return self.file.write(data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, self.room = data[: self.room], 0
        return self.file.write(taken)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_wait_for_a_full_disk_and_none_is_cut(tmp_path):
    said, path = [], tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a')
    file = writers.MetricsFile(path, 1, said.append)
    disk = file._file = FullDisk(file._file)
    file.write(2, {"a": 3.0})
    disk.full = True
    for step in (3, 4):
        file.write(step, {"a": float(step)})
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    disk.full = False
    file.write(5, {"a": 5.0})
    file.rewind(4)
    file.write(5, {"a": 6.0})
    file.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "a": 1},
        *({"step": step, "a": float(a)} for step, a in ((2, 3), (3, 3), (4, 4), (5, 6))),
    ]
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_rows_that_are_lost_are_counted(tmp_path):
    said = []
    file = writers.MetricsFile(tmp_path / "metrics.jsonl", -1, said.append)
    file._file = FullDisk(file._file)
    file._file.full = True
    file.write(1, {"a": 1.0})
    file.write(2, {"a": 1.0})
    file.close()
    assert "the last 2 rows" in said[-1]


@pytest.mark.parametrize("fault", ["unwritable", "full"])
def test_tensorboard_gives_up_with_one_line(tmp_path, fault):
    said, directory = [], tmp_path / "tensorboard"
    if fault == "unwritable":
        directory.write_text("a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if fault == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        board = writers.TensorBoard(directory, -1, said.append)
        for step in range(3000):
            board.write(step, {"train/loss": 1.0})
        board.rewind(2)
        board.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 1
    assert f"{directory} cannot be written" in said[0]
    assert "without TensorBoard" in said[0]


def fields(message: bytes) -> dict[int, list]:
    """The fields of a protocol buffer by number; what is nested stays bytes."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        size = {0: 0, 1: 8, 5: 4}.get(kind)
        size = varint() if size is None else size
        value = message[at : at + size] if size or kind == 2 else varint()
        at += size
        found.setdefault(number, []).append(value)
    return found


def events(directory):
    """("start", step) and (tag, step, value) of each event, in the order TensorBoard reads them."""
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = fields(data[12 : 12 + length])
            data = data[16 + length :]
            step = event.get(2, [0])[0]
            if 7 in event:
                assert fields(event[7][0])[1] == [1]  # a session's START
                yield "start", step
            for value in (v for summary in event.get(5, ()) for v in fields(summary)[1]):
                (tag,), (number,) = (fields(value)[i] for i in (1, 2))
                yield tag.decode(), step, float(np.frombuffer(number, "<f4")[0])


def test_tensorboard_forgets_what_is_written_again(tmp_path):
    board = writers.TensorBoard(tmp_path, 4, print)
    board.write(5, {"train/loss": 1.5, "eval/mlm_loss": 2.5})
    board.rewind(2)
    board.write(3, {"train/loss": 3.0})
    board.close()
    assert list(events(tmp_path)) == [
        ("start", 5),
        ("train/loss", 5, 1.5),
        ("eval/mlm_loss", 5, 2.5),
        ("start", 3),
        ("train/loss", 3, 3.0),
    ]


@pytest.fixture
def session(config):
    config.mesh.data = 1
    config.task.nsp, config.model.num_segments = True, 2
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    return Session(run, mesh, *build.load_task(run, progress=print))


def flip_one_bit(grads):
    """The lowest bit of the first element of the first leaf, another way."""
    leaves, tree = jax.tree.flatten(grads)
    bits = jax.lax.bitcast_convert_type(leaves[0], jnp.uint32).ravel()
    bits = bits.at[0].set(bits[0] ^ jnp.uint32(1)).reshape(leaves[0].shape)
    leaves[0] = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jax.tree.unflatten(tree, leaves)


@pytest.mark.slow
def test_a_flipped_bit_of_a_gradient_is_found_and_nothing_empty_divides_by_zero(
    session, monkeypatch
):
    state = session.start(NoCheckpoints())
    (sound,) = session._steps.values()
    batch = session.batch(0)

    replayed, _ = replay.step_twice(sound, state, batch)
    state = session.start(NoCheckpoints())
    plain, _ = sound(state, batch)
    assert_same(replayed, plain)

    for empty in ("masked_weights", "valid"):  # no target in the batch; no token
        nothing = batch | {
            name: jnp.zeros_like(batch[name])
            for name in ("masked_weights", "example_weights", empty)
        }
        plain, report = sound(plain, nothing)
        assert int(report.health.bad_step) == -1
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(plain)))
        found = jax.jit(session.task.eval_batch)(plain.params, nothing)
        metrics = session.task.eval_metrics([jax.device_get(found)])
        assert np.isfinite(list(metrics.values())).all()

    original = Step.gradient

    def gradient(self, *args):
        grads, metrics = original(self, *args)
        return flip_one_bit(grads), metrics

    monkeypatch.setattr(Step, "gradient", gradient)
    state = session.start(NoCheckpoints())
    wrong = list(session._steps.values())  # for the first computation of the two

    def step(state, batch):
        return (wrong.pop() if wrong else sound)(state, batch)

    with pytest.raises(FaultError, match=r"step 1 computed twice gives different bits in .*params"):
        replay.step_twice(step, state, batch)


def test_bits_are_compared_not_values():
    a = {"x": jnp.float32([0.0, np.nan]), "n": jnp.int32(3), "b": jnp.bfloat16(1)}
    assert replay.different_leaves(a, a) == []
    assert replay.different_leaves(a, a | {"x": -a["x"]}) == ["x"]
    assert replay.different_leaves(a, a | {"n": jnp.int32(4), "b": jnp.bfloat16(2)}) == ["b", "n"]


@pytest.mark.slow
def test_the_loop_replays_when_due_and_two_runs_on_one_mesh_have_the_same_bits(
    config, tmp_path, monkeypatch
):
    from sibert_jax.train import loop

    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 2, 2, 2
    config.train.num_steps, config.checkpoint.every_steps = 6, 6
    config.train.eval_every_steps = 0
    first = jax.device_get(loop.train(config, tmp_path / "first"))
    config.train.replay_every_steps = 3
    replayed, original = [], replay.step_twice

    def noted(step, state, batch):
        replayed.append(int(state.step) + 1)
        return original(step, state, batch)

    monkeypatch.setattr(loop, "step_twice", noted)
    second = jax.device_get(loop.train(config, tmp_path / "second"))
    assert replayed == [3, 6]
    assert_same(first, second)
    assert rows(tmp_path / "first") == rows(tmp_path / "second")


class FakeTime:
    now = 100.0

    def monotonic(self):
        return self.now


def test_goodput_counts_inner_phases_once_and_adds_up_over_starts(tmp_path, monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(goodput, "time", clock)
    path = tmp_path / "goodput.json"
    for start in (1, 2):
        sums = Goodput(path, Watchdog(0), clock.now - 5.0)
        with sums.phase("step"):
            clock.now += 1.0
            for _ in sums.each("input", range(3)):
                sums.steps += 1
                clock.now += 2.0
            with sums.phase("evaluation"):
                clock.now += 3.0
        sums.write()
        row = sums.row(step=3)
        assert row["goodput/starts"] == start
        assert row["goodput/start"] == 5.0 * start
        assert row["goodput/step"] == 7.0 * start
        assert row["goodput/evaluation"] == 3.0 * start
        assert row["goodput/repeated_steps"] == 3 * (start - 1)
        assert row["goodput/share"] == pytest.approx(7.0 / 15.0 / start)
        assert f"{start} start" in sums.line(3)
        clock.now += 50.0  # between two starts nothing runs
    path.write_text("{}")
    assert Goodput(path, Watchdog(0), clock.now).starts == 1


def test_the_watchdog_is_told_of_every_phase(train_one, config, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Watchdog, "expect", lambda self, phase: told.append(phase))
    config.mesh.data = 1
    train_one(config, tmp_path / "run")
    assert set(told) == set(goodput.PHASES) - {"restore", "other"}
    assert told.count("input") == config.train.num_steps
    del told[:]
    train_one(config, tmp_path / "run")
    assert "restore" in told
