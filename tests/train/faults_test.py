"""Rows of metrics on a disk that is full."""

import errno
import json
import os

from tensorboardX.proto.event_pb2 import Event

from sibert_jax.train import writers


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


def test_tensorboard_gives_up_with_one_line(tmp_path):
    said = []
    board = writers.TensorBoard(tmp_path, -1, said.append)
    board._file = FullDisk(board._file)
    board._file.full = True
    for step in range(100):
        board.write(step, {"train/loss": 1.0})
    board.close()
    assert len(said) == 1
    assert "without TensorBoard" in said[0]


def test_tensorboard_reads_the_events(tmp_path):
    board = writers.TensorBoard(tmp_path, 4, print)
    board.write(5, {"train/loss": 1.5, "eval/mlm_loss": 2.5})
    board.close()
    (path,) = tmp_path.iterdir()
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert events[0].file_version == "brain.Event:2"
    assert events[1].step == 5
    assert events[1].session_log.status == 1  # START: what came after step 4 is forgotten
    found = {value.tag: value.simple_value for value in events[2].summary.value}
    assert found == {"train/loss": 1.5, "eval/mlm_loss": 2.5}
