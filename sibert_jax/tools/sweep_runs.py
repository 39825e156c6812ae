"""The runs of a sweep, and their execution."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from sibert_jax.config_file import import_file, load_config, user_code
from sibert_jax.data import DataError
from sibert_jax.errors import TRAINING_FAILED, ConfigError
from sibert_jax.files import user_path, write_json
from sibert_jax.report.sweep_table import Outcome
from sibert_jax.runtime.signals import Stopped
from sibert_jax.runtime.terminal import say
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

NOT_KEYS = ("config", "panel")  # what a point may set besides config keys
LONGEST_NAME = 120  # maximum characters of a folder name
POLL_SECONDS = 0.2
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # XLA_FLAGS


class Point(NamedTuple):
    """One run of a sweep."""

    name: str  # name of its folder
    overrides: dict  # as the sweep file gave them
    arguments: tuple[str, ...]  # for sibert_jax.main: --config and its overrides


class Running(NamedTuple):
    """A run in progress, and the lock that is held until its result is written."""

    point: Point
    process: subprocess.Popen
    lock: IO
    core: int | None  # the core reserved for it, if any


def read_sweep(
    path: str | os.PathLike, config_file: str, overrides: Sequence[str]
) -> tuple[str, tuple[Point, ...]]:
    """Returns the metric ("": each task's own) and the points, checked as by `sibert_jax.main`.

    Args:
      path: the sweep file.
      config_file: the config of points without their own "config".
      overrides: `--config.KEY=VALUE` for all points; a point's own overrides win.

    Raises:
      ConfigError: the file cannot be run, or a point has an invalid key or value.
    """
    path = user_path(path)
    with user_code(path):
        module = import_file(path)
        if not hasattr(module, "sweep"):
            raise ConfigError(f"{path} has no function sweep(); write one that yields dicts.")
        given = list(module.sweep())
    if not given:
        raise ConfigError(f"sweep() of {path} yields nothing.")
    points = tuple(_point(path, config_file, overrides, values) for values in given)
    names = [point.name for point in points]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"sweep() of {path} yields {twice} twice.")
    return getattr(module, "METRIC", ""), points


def _point(path: pathlib.Path, config_file: str, overrides: Sequence[str], values: dict) -> Point:
    settings = {key: value for key, value in values.items() if key not in NOT_KEYS}
    file = values.get("config", config_file)
    own = [f"--config.{key}={value}" for key, value in settings.items()]
    arguments = (f"--config={file}", *overrides, *own)
    said = (f"{key}={value}" for key, value in values.items() if key != "panel")
    name = ",".join(said).replace("/", "_")
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    try:
        run_config(resolve(load_config(file, [*overrides, *own])))
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{name or 'a point'} of {path}: {error}") from None
    return Point(name or "default", values, arguments)


class Sweep:
    """The points of a sweep and their results, as files in one folder."""

    def __init__(self, directory: pathlib.Path, points: Sequence[Point]):
        self.directory, self.points = directory, points
        try:
            for folder in ("runs", "results", "logs", "locks"):
                (directory / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--workdir={directory} cannot be written: {error}.") from None

    def run(self, workers: int, cores: Sequence[int] = ()) -> list[str]:
        """Runs every point without a result that no other process holds; returns what failed.

        Args:
          workers: number of concurrent runs.
          cores: one per worker, each run single-threaded on it; (): all cores for all runs. Single
            cores make small runs faster, and results independent of what else is running.
        """
        free: list[int | None] = list(cores) or [None] * workers
        running: list[Running] = []
        failed: list[str] = []
        waiting = list(self.points)
        with _forwarding_signals(running) as stopped:
            while (waiting and not stopped) or running:
                while waiting and not stopped and free:
                    if run := self._start(waiting.pop(0), free[-1]):
                        running.append(run)
                        free.pop()
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    free.append(run.core)
                    sentence = self._finish(run.point, run.process.returncode)
                    run.lock.close()
                    if sentence:
                        failed.append(f"{run.point.name}: {sentence}")
                if running:
                    time.sleep(POLL_SECONDS)
        if stopped:
            raise Stopped(signal.Signals(stopped[0]).name)
        return failed

    def _start(self, point: Point, core: int | None) -> Running | None:
        """Starts a run, unless it has a result or another process is running it."""
        lock = (self.directory / "locks" / point.name).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"{point.name}: in progress in another process")
            lock.close()
            return None
        if self._result(point).exists():
            lock.close()
            return None
        say(f"{point.name}: started")
        command = [sys.executable, "-m", "sibert_jax.main", *point.arguments]
        command.append(f"--workdir={self.directory / 'runs' / point.name}")
        with self._log(point).open("w") as log, _on(core) as environment:
            # The child inherits the lock, which so holds even if this process is killed.
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                process_group=0,
                env=environment,
            )
        return Running(point, process, lock, core)

    def _finish(self, point: Point, status: int) -> str:
        """Records the outcome of a run; returns what went wrong if it should be retried."""
        results = self.directory / "runs" / point.name / "results.json"
        last = self._log(point).read_text(errors="replace").strip().splitlines()[-1:]
        if status == TRAINING_FAILED:
            outcome = {"status": "diverged", "reason": last[0]}
        elif status == 0 and results.exists():
            outcome = {"status": "finished", "results": json.loads(results.read_text())}
        elif status == 0:
            return "stopped before its last step"
        else:
            return f"exit status {status}, {' '.join(last)} (full log: {self._log(point)})"
        write_json(self._result(point), {"overrides": point.overrides, **outcome})
        say(f"{point.name}: {outcome['status']}")
        return ""

    def outcomes(self, metric: str) -> list[Outcome]:
        """Returns the outcomes so far, in sweep order; metric "" stands for a task's main metric.

        Raises:
          ConfigError: a run has no such metric.
        """
        found = []
        for point in self.points:
            if not self._result(point).exists():
                continue
            result = json.loads(self._result(point).read_text())
            if result["status"] == "diverged":
                found.append(Outcome(point.overrides, metric, None))
                continue
            name = metric or result["results"]["main_metric"]
            last = result["results"]["last"]
            if f"eval/{name}" not in last:
                measured = sorted(key.removeprefix("eval/") for key in last if key != "step")
                raise ConfigError(f"METRIC={name!r} is not measured by {point.name}: {measured}.")
            found.append(Outcome(point.overrides, name, last[f"eval/{name}"]))
        return found

    def _result(self, point: Point) -> pathlib.Path:
        return self.directory / "results" / f"{point.name}.json"

    def _log(self, point: Point) -> pathlib.Path:
        return self.directory / "logs" / f"{point.name}.txt"


@contextlib.contextmanager
def _on(core: int | None) -> Iterator[dict[str, str] | None]:
    """Pins processes started in this context to a core; yields their environment."""
    if core is None:
        yield None
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()}
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _forwarding_signals(running: list[Running]) -> Iterator[list[int]]:
    """Forwards SIGTERM and SIGINT to the runs, which save and exit; yields the received signals."""
    stopped: list[int] = []

    def forward(number, frame):
        del frame
        stopped.append(number)
        for run in running:
            run.process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
