"""Rows of metrics on a disk that is full."""

import errno
import json
import os
import resource

import numpy as np
import pytest

from sibert_jax.train import writers
from sibert_jax.train.evaluate import best_row, evaluations


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
    file = writers.MetricsFile(path, 5, said.append)
    disk = file._file = FullDisk(file._file)
    disk.full = True
    for step in (6, 7):
        file.write(step, {"a": 1.0})
    file.close()
    assert "the last 2 rows" in said[-1]


def test_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = writers.MetricsFile(path, -1, print)
    for step, loss in enumerate((np.inf, 0.5, np.nan, 0.5)):
        file.write(step, {"optim/clip_threshold": np.inf, "eval/loss": loss})
    file.close()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    read = [json.loads(row, parse_constant=refuse) for row in path.read_text().splitlines()]
    assert read[1] == {"step": 1, "optim/clip_threshold": None, "eval/loss": 0.5}
    for lower_is_better in (True, False):
        found = best_row(evaluations(path), "eval/loss", lower_is_better=lower_is_better)
        assert found == {"step": 1, "eval/loss": 0.5}


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
    """The fields of a protocol buffer by number, all of one byte's length; nested ones as bytes."""
    found, at = {}, 0
    while at < len(message):
        number, kind = divmod(message[at], 8)
        size = message[at + 1] if kind == 2 else {0: 1, 1: 8, 5: 4}[kind]
        at += 2 if kind == 2 else 1
        value = message[at : at + size]
        found.setdefault(number, []).append(value[0] if kind == 0 else value)
        at += size
    return found


def events(directory):
    """("start", step) and (tag, step, value) of each event, in the order TensorBoard reads them."""
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event, data = fields(data[12 : 12 + length]), data[16 + length :]
            step = event.get(2, [0])[0]
            if 7 in event:
                assert fields(event[7][0])[1] == [1]  # a session's START
                yield "start", step
            for value in (fields(v) for s in event.get(5, ()) for v in fields(s)[1]):
                yield value[1][0].decode(), step, np.frombuffer(value[2][0], "<f4")[0]


def test_tensorboard_forgets_what_is_written_again(tmp_path):
    board = writers.TensorBoard(tmp_path, 4, print)
    board.write(5, {"train/loss": 1.5, "eval/mlm_loss": 2.5})
    board.rewind(2)
    board.write(3, {"train/loss": 3.0, "optim/clip_threshold": float("inf")})  # left out
    board.close()
    assert list(events(tmp_path)) == [
        ("start", 5),
        ("train/loss", 5, 1.5),
        ("eval/mlm_loss", 5, 2.5),
        ("start", 3),
        ("train/loss", 3, 3.0),
    ]
