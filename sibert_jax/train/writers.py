"""Writers of metrics rows. A full disk does not stop training."""

import contextlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence

from tensorboardX import SummaryWriter
from tensorboardX.record_writer import register_writer_factory

from sibert_jax.train.trackers import Forgiving, open_tracker

Warn = Callable[[str], None]


def open_all(
    names: Sequence[str], directory: pathlib.Path, last_step: int, settings: dict, warn: Warn
) -> list:
    """Opens the metrics file, TensorBoard and trackers of a run.

    Args:
      names: names of the writers besides the file.
      directory: the workdir.
      last_step: rows after this step will be written again; -1: all of them.
      settings: the run's settings, for trackers.
      warn: called with warnings.
    """
    opened: list = [MetricsFile(directory / "metrics.jsonl", last_step, warn)]
    for name in names:
        if name == "tensorboard":
            opened.append(TensorBoard(directory / name, last_step, warn))
        else:
            opened.append(Forgiving(name, open_tracker(name, directory, settings), warn))
    return opened


class MetricsFile:
    """`metrics.jsonl`: one JSON object per row, `step` first. The source of truth for reports.

    Values that are not finite, such as the clip threshold at a learning rate of 0, are null, as
    JSON requires. Rows that cannot be written wait in memory until a write succeeds.

    Args:
      path: the file, created if missing.
      last_step: rows after this step are dropped, as they will be written again; -1: all of them.
      warn: called with a warning when a write first fails.
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
        numbers = {name: value if math.isfinite(value) else None for name, value in row.items()}
        line = json.dumps({"step": step, **numbers}, allow_nan=False)
        self._waiting.append((step, line.encode() + b"\n"))
        self._drain()

    def _drain(self):
        rows = b"".join(line for _, line in self._waiting)
        try:
            self._file.seek(self._end)
            _write_all(self._file, rows)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)  # leave no partial row
            if not self._warned:
                self._warn(
                    f"warning: {self._path} cannot be written ({error.strerror}); training "
                    "continues, and the rows wait in memory until they can be"
                )
            self._warned = True
            return
        self._end += len(rows)
        self._waiting.clear()

    def close(self):
        """Closes the file; warns if rows are lost."""
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
    """Writes the same rows for TensorBoard, until a write fails.

    Args:
      directory: the folder of the event files; this run adds one.
      last_step: TensorBoard drops earlier data after this step.
      warn: called with a warning when a write fails.
    """

    _numbers = itertools.count()

    def __init__(self, directory: pathlib.Path, last_step: int, warn: Warn):
        self._number = next(self._numbers)
        self._path, self._writer, self._files = f"run{self._number}:{directory}", None, 0
        register_writer_factory(f"run{self._number}", _EventFiles(directory, warn))
        self.rewind(last_step)

    def rewind(self, last_step: int):
        """Makes TensorBoard drop what was written after a step."""
        self.close()
        self._files += 1
        self._writer = SummaryWriter(
            self._path,
            purge_step=last_step + 1,
            max_queue=1000,
            flush_secs=10,
            filename_suffix=f".{os.getpid()}.{self._number}.{self._files}",
        )

    def write(self, step: int, row: dict[str, float]):
        """Adds each scalar."""
        for name, value in row.items():
            if math.isfinite(value):  # a threshold is infinite if the learning rate is 0
                self._writer.add_scalar(name, value, step)

    def close(self):
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()


class _EventFiles:
    """Opens the event files of one `TensorBoard`, as a tensorboardX file factory.

    No error reaches tensorboardX, where it would kill the thread and block the queue.
    """

    def __init__(self, directory: pathlib.Path, warn: Warn):
        self._directory, self._warn = directory, warn
        self._failed = False

    def directory_check(self, path: str):
        """Creates the directory."""
        del path
        with self.giving_up():
            self._directory.mkdir(parents=True, exist_ok=True)

    def open(self, path: str) -> "_EventFile":
        """Opens a file in the directory."""
        file = None
        with self.giving_up():
            file = (self._directory / pathlib.Path(path).name).open("ab")
        return _EventFile(file, self)

    @contextlib.contextmanager
    def giving_up(self):
        """Warns on the first error."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._warn(
                    f"warning: {self._directory} cannot be written ({error.strerror}); training "
                    "continues without TensorBoard, metrics.jsonl has the rows"
                )
            self._failed = True


class _EventFile:
    """An event file that ignores writes after its first error."""

    def __init__(self, file, files: _EventFiles):
        self._file, self._files = file, files

    def write(self, data: bytes):
        self._do("write", data)

    def flush(self):
        self._do("flush")

    def close(self):
        self._do("flush")
        if self._file is not None:
            self._file.close()

    def _do(self, name: str, *arguments):
        file, self._file = self._file, None
        if file is None:
            return
        with self._files.giving_up():
            getattr(file, name)(*arguments)
            self._file = file
        if self._file is None:
            with contextlib.suppress(OSError):
                file.close()


def _write_all(file, data: bytes):
    """Writes all data; unbuffered files may write only a part at a time."""
    while data:
        data = data[file.write(data) :]
