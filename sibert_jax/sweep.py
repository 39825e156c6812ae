"""Runs one config many times: python -m sibert_jax.sweep --config=FILE --sweep=FILE --workdir=DIR.

The sweep file has a function `sweep()` that yields dicts of overrides, and may name the metric:

    METRIC = "mlm_accuracy"  # of a loss the least is best, else the greatest; default: the task's


    def sweep():
        for learning_rate in (1e-3, 2e-3):
            for seed in range(3):
                yield {"optim.learning_rate": learning_rate, "seed": seed}

The key "config" stands for a config file of the point's own, the key "panel" for the box plot that
it is drawn in, such as the name of a task (default: one a config file). All points are checked
before the first one starts. The same command resumes: finished points are kept, a broken-off one
goes on from its checkpoint. Started several times at once, also on several machines with a shared
disk that keeps locks, the processes share the points among them. Each point has a folder in
DIR/runs; the table over all of them is DIR/sweep.md, sweep.csv and sweep.png.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import pathlib
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from absl import flags
from ml_collections import config_flags

from sibert_jax.main import fail, unknown_key
from sibert_jax.report.sweep_table import Outcome, write_summary
from sibert_jax.train import build
from sibert_jax.train.errors import TRAINING_FAILED, ConfigError

NOT_KEYS = ("config", "panel")  # what a point may say besides the config's keys
LONGEST_NAME = 120  # characters of a folder's name
POLL_SECONDS = 0.2


class Point(NamedTuple):
    """One run of a sweep."""

    name: str  # of its folder
    overrides: dict  # as the sweep file gave them
    arguments: tuple[str, ...]  # for sibert_jax.main: --config and its overrides


class Running(NamedTuple):
    """A run at work, and the lock that is held until its result is written."""

    point: Point
    process: subprocess.Popen
    lock: IO


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is left of a sweep and writes its table; exits with 1 if a point failed."""
    parser = argparse.ArgumentParser(
        prog="python -m sibert_jax.sweep",
        description="Runs a config with many settings, resumable and in parallel.",
        epilog="Overrides (--config.KEY=VALUE) hold for all points.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file of the runs")
    parser.add_argument("--sweep", required=True, metavar="FILE", help="Python file with sweep()")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the sweep")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parsed, overrides = parser.parse_known_args(arguments)
    if stray := [word for word in overrides if not word.startswith("--config.")]:
        fail(f"stray argument {stray[0]!r}; overrides look like --config.optim.learning_rate=1e-3.")
    if parsed.workers < 1:
        fail(f"--workers={parsed.workers} must be at least 1.")
    try:
        metric, points = read_sweep(parsed.sweep, parsed.config, overrides)
    except ConfigError as error:
        fail(str(error))
    sweep = Sweep(pathlib.Path(parsed.workdir), points)
    failed = sweep.run(parsed.workers)
    try:
        for path in write_summary(sweep.outcomes(metric), sweep.directory):
            print(path)
    except ConfigError as error:
        fail(f"{parsed.sweep}: {error}")
    if failed:
        fail(f"{len(failed)} of {len(points)} runs failed: {'; '.join(failed)}", status=1)


def read_sweep(
    path: str, config_file: str, overrides: Sequence[str]
) -> tuple[str, tuple[Point, ...]]:
    """The metric ("": each task's own) and the points, each checked as `sibert_jax.main` would.

    Args:
      path: the sweep file.
      config_file: what points without a "config" of their own start from.
      overrides: `--config.KEY=VALUE` for all points; those of a point come later and win.

    Raises:
      ConfigError: the file cannot be read, or a point has a key or a value that cannot work.
    """
    try:
        found = runpy.run_path(path)
        given = list(found["sweep"]())
    except KeyError:
        raise ConfigError(f"{path} has no function sweep(); write one that yields dicts.") from None
    except Exception as error:  # whatever the user's file raises
        raise ConfigError(f"{path} cannot be run: {type(error).__name__}: {error}.") from None
    if not given:
        raise ConfigError(f"sweep() of {path} yields nothing.")
    points = tuple(_point(path, config_file, overrides, values) for values in given)
    names = [point.name for point in points]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"sweep() of {path} yields {twice} twice.")
    return found.get("METRIC", ""), points


def _point(path: str, config_file: str, overrides: Sequence[str], values: dict) -> Point:
    settings = {key: value for key, value in values.items() if key not in NOT_KEYS}
    file = values.get("config", config_file)
    own = (f"--config.{key}={value}" for key, value in settings.items())
    arguments = (f"--config={file}", *overrides, *own)
    said = (f"{key}={value}" for key, value in values.items() if key != "panel")
    name = ",".join(said).replace("/", "_")
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    try:
        build.run_config(load_config(arguments))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{name or 'a point'} of {path}: {error}") from None
    return Point(name or "default", values, arguments)


def load_config(arguments: Sequence[str]):
    """The ConfigDict that `sibert_jax.main` would make of --config and its overrides."""
    values, words = flags.FlagValues(), ["sweep", *arguments]
    holder = config_flags.DEFINE_config_file(
        "config", None, lock_config=True, flag_values=values, sys_argv=words
    )
    try:
        values(words)
        return holder.value.lock()  # a file that failed to load raises only now
    except AttributeError as error:
        raise ConfigError(unknown_key(str(error))) from None
    except (flags.Error, OSError, TypeError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


class Sweep:
    """The points of a sweep and what is known of each, as files in one folder."""

    def __init__(self, directory: pathlib.Path, points: Sequence[Point]):
        self.directory, self.points = directory, points
        try:
            for folder in ("runs", "results", "logs", "locks"):
                (directory / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"--workdir={directory} cannot be written: {error}.")

    def run(self, workers: int) -> list[str]:
        """Runs every point without a result that no other process holds; names what failed."""
        running: list[Running] = []
        failed: list[str] = []
        waiting = list(self.points)
        with _forwarding_signals(running) as stopped:
            while (waiting and not stopped) or running:
                while waiting and not stopped and len(running) < workers:
                    running += self._start(waiting.pop(0))
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    sentence = self._finish(run.point, run.process.returncode)
                    run.lock.close()
                    if sentence:
                        failed.append(f"{run.point.name}: {sentence}")
                if running:
                    time.sleep(POLL_SECONDS)
        if stopped:
            fail("stopped; run again to resume.", status=1)
        return failed

    def _start(self, point: Point) -> list[Running]:
        """Starts a run, unless it has its result or another process is at it."""
        lock = (self.directory / "locks" / point.name).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say(f"{point.name}: another process is at it")
            lock.close()
            return []
        if self._result(point).exists():
            lock.close()
            return []
        _say(f"{point.name}: started")
        command = [sys.executable, "-m", "sibert_jax.main", *point.arguments]
        command.append(f"--workdir={self.directory / 'runs' / point.name}")
        with self._log(point).open("w") as log:
            # The child inherits the lock, so that it holds even if this process is killed.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, pass_fds=(lock.fileno(),), process_group=0
            )
        return [Running(point, process, lock)]

    def _finish(self, point: Point, status: int) -> str:
        """Notes the outcome of a run; returns what went wrong, if it is to be tried again."""
        results = self.directory / "runs" / point.name / "results.json"
        last = self._log(point).read_text(errors="replace").strip().splitlines()[-1:]
        if status == TRAINING_FAILED:
            outcome = {"status": "diverged", "reason": last[0]}
        elif status == 0 and results.exists():
            outcome = {"status": "finished", "results": json.loads(results.read_text())}
        elif status == 0:
            return "stopped before its last step"
        else:
            return f"exit status {status}, {' '.join(last)} (all of it: {self._log(point)})"
        temporary = self._result(point).with_suffix(".tmp")
        temporary.write_text(json.dumps({"overrides": point.overrides, **outcome}, indent=2))
        temporary.rename(self._result(point))
        _say(f"{point.name}: {outcome['status']}")
        return ""

    def outcomes(self, metric: str) -> list[Outcome]:
        """What is known so far, in the order of the sweep; "" stands for a task's main metric.

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
def _forwarding_signals(running: list[Running]) -> Iterator[list[int]]:
    """Hands SIGTERM and SIGINT on to the runs, which save and exit; yields what came."""
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
