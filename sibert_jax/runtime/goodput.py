"""The wall time of a run by phase, over all its starts."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from sibert_jax.files import write_json
from sibert_jax.runtime.watchdog import Watchdog

T = TypeVar("T")
# `step` includes waiting for the device; `other` is closing files and the like.
PHASES = ("start", "compile", "restore", "step", "input", "evaluation", "checkpoint", "other")
WRITE_SECONDS = 1.0


class Goodput:
    """Seconds by phase; a phase within another takes its time from the outer one.

    The sums are kept in `goodput.json` of the workdir, so that repeated steps and starts after a
    kill are counted; what a killed start did after its last row is not. They depend on the clock,
    so they are not part of checkpoints or of anything that must be equal after a resume.

    Args:
      path: path of `goodput.json`, started from scratch if unreadable; None: no file, as in all
        processes but the first.
      watchdog: notified of each phase.
      started: `time.monotonic()` when the program started.
    """

    def __init__(self, path: pathlib.Path | None, watchdog: Watchdog, started: float):
        self._path, self._watchdog = path, watchdog
        self._phase, self._since = "start", started
        self._written = time.monotonic()
        self.starts, self.steps, self.seconds = 1, 0, dict.fromkeys(PHASES, 0.0)
        if path is None or not path.exists():
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(path.read_text())
            seconds = {name: float(before["seconds"][name]) for name in PHASES}
            self.starts, self.steps = 1 + int(before["starts"]), int(before["steps"])
            self.seconds = seconds

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the enclosed code as a phase, one of PHASES."""
        outer = self._phase
        self._enter(name)
        try:
            yield
        finally:
            self._enter(outer)

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, timing the wait for each as a phase."""
        iterator, end = iter(items), object()
        while True:
            with self.phase(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def renew(self):
        """Tells the watchdog that the phase makes progress."""
        self._watchdog.expect(self._phase)

    def _enter(self, name: str):
        now = time.monotonic()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = name, now
        self._watchdog.expect(name)

    def row(self, step: int) -> dict[str, float]:
        """Returns seconds by phase, starts, repeated steps, and the share of useful step time.

        Args:
          step: the step that the run has reached.
        """
        self._enter(self._phase)
        row = {f"goodput/{name}": seconds for name, seconds in self.seconds.items()}
        row["goodput/starts"] = self.starts
        row["goodput/repeated_steps"] = repeated = max(0, self.steps - step)
        kept = 1 - repeated / max(1, self.steps)
        row["goodput/share"] = kept * self.seconds["step"] / max(1e-9, sum(self.seconds.values()))
        return row

    def line(self, step: int) -> str:
        """Returns the same as text."""
        row = self.row(step)
        spent = sorted(self.seconds.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in spent if seconds >= 0.05)
        return (
            f"goodput {row['goodput/share']:.1%} of {sum(self.seconds.values()):,.1f} s in "
            f"{self.starts} start{'s' if self.starts > 1 else ''}: seconds of {parts}; "
            f"{row['goodput/repeated_steps']:,} steps repeated"
        )

    def write(self):
        """Writes the sums to disk, if possible."""
        self._enter(self._phase)
        self._written = time.monotonic()
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            sums = {"starts": self.starts, "steps": self.steps, "seconds": self.seconds}
            write_json(self._path, sums)

    def write_now_and_then(self):
        """Writes the sums, at most once per WRITE_SECONDS."""
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()
