"""The places that rows of metrics are written to. A disk that is full stops no training."""

import contextlib
import json
import math
import os
import pathlib
import socket
import struct
import time
from collections.abc import Callable

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

Warn = Callable[[str], None]


class MetricsFile:
    """`metrics.jsonl`: one object a row, `step` first. The source of truth for reports.

    Rows that cannot be written wait in memory, and follow with the first one that can.

    Args:
      path: the file, made if it is not there.
      last_step: rows after this step are dropped, as they will be written again; -1: all of them.
      warn: called with a line of text when a write fails for the first time.
    """

    def __init__(self, path: pathlib.Path, last_step: int, warn: Warn):
        self._path, self._warn = path, warn
        self._waiting: list[tuple[int, bytes]] = []
        self._warned = False
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        self._end = 0
        self.rewind(last_step)

    def rewind(self, last_step: int):
        """Drops the rows after a step."""
        position = self._end = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            position += len(line)
            if _step_of(line) <= last_step:
                self._end = position
        self._file.truncate(self._end)
        self._waiting = [(step, line) for step, line in self._waiting if step <= last_step]

    def write(self, step: int, row: dict[str, float]):
        """Appends a row and hands it to the operating system."""
        self._waiting.append((step, json.dumps({"step": step, **row}).encode() + b"\n"))
        self._drain()

    def _drain(self):
        rows = b"".join(line for _, line in self._waiting)
        try:
            self._file.seek(self._end)
            _write_all(self._file, rows)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)  # no half of a row stays
            if not self._warned:
                self._warn(
                    f"warning: {self._path} cannot be written ({error.strerror}); training goes "
                    "on, and the rows wait in memory until they can be"
                )
            self._warned = True
            return
        self._end += len(rows)
        self._waiting.clear()

    def close(self):
        """Closes the file; says how many rows are lost, if any."""
        self._drain()
        if self._waiting:
            self._warn(f"warning: the last {len(self._waiting)} rows of {self._path} are lost")
        self._file.close()


def _step_of(row: bytes) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError):  # the last line of a killed run may be half-written
        return math.inf


class TensorBoard:
    """The same rows for TensorBoard, until a write fails.

    Not `tensorboardX.SummaryWriter`: its thread dies of a full disk, and its queue then blocks.

    Args:
      directory: of the event files; this run adds one.
      last_step: TensorBoard forgets what it has after this step.
      warn: called with a line of text when a write fails.
    """

    def __init__(self, directory: pathlib.Path, last_step: int, warn: Warn):
        self._directory, self._warn = directory, warn
        self._file = None
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        with self._giving_up():
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / name).open("ab", buffering=0)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.rewind(last_step)

    def rewind(self, last_step: int):
        """Makes TensorBoard forget what was written after a step."""
        restart = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), step=last_step + 1, session_log=restart))

    def write(self, step: int, row: dict[str, float]):
        """Adds each scalar."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, event: Event):
        if self._file is not None:
            with self._giving_up():
                _write_all(self._file, _record(event.SerializeToString()))

    @contextlib.contextmanager
    def _giving_up(self):
        try:
            yield
        except OSError as error:
            self._warn(
                f"warning: {self._directory} cannot be written ({error.strerror}); training goes "
                "on without TensorBoard, metrics.jsonl has the rows"
            )
            self.close()

    def close(self):
        """Closes the event file."""
        if self._file is not None:
            self._file.close()
        self._file = None


def _record(data: bytes) -> bytes:
    """TFRecord framing: length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def _write_all(file, data: bytes):
    """Unbuffered files may take less than they are given."""
    while data:
        data = data[file.write(data) :]
