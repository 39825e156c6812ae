"""Agrees on the step after which all processes stop for a signal."""

import contextlib
import math
import threading

from sibert_jax.runtime.coordination import Unreachable
from sibert_jax.runtime.processes import ProcessGroup
from sibert_jax.runtime.signals import StopRequest

POLL_SECONDS = 0.5


class StopStep:
    """A context in which a signal to one process stops all of them after the same step.

    After a signal, each process reports how many steps it has started, without starting another
    meanwhile; all stop after the step that follows the highest of these numbers. This happens in a
    thread, so no step waits for it without a signal.

    `multihost_utils.reached_preemption_sync_point` works similarly, but Python's signal handlers
    hide the signal from it, and a run resumed at a step above the one agreed on during start-up
    never stops.
    """

    def __init__(self, signals: StopRequest, group: ProcessGroup):
        self._signals, self._group = signals, group
        self._between_steps = threading.Lock()
        self._step, self._last = 0, math.inf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._agree, name="stop", daemon=True)

    def __enter__(self):
        if self._group.count > 1:
            self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        if self._group.count > 1:
            self._thread.join()

    def reached(self, step: int) -> bool:
        """Tells whether to stop after `step`; every process must call this after each step."""
        if self._group.count == 1:
            return bool(self._signals.requested)
        with self._between_steps:
            self._step = step
            return step >= self._last

    def _agree(self) -> None:
        notes = self._group.notes
        with contextlib.suppress(Unreachable):  # process 0 is gone: see processes.py
            while not (notices := notes.read("stop/notice")):
                if self._ended.wait(POLL_SECONDS):
                    return
                if self._signals.requested:
                    notes.write("stop/notice", self._group.index, self._signals.requested)
            with self._between_steps:
                notes.write("stop/step", self._group.index, str(self._step))
                while len(steps := notes.read("stop/step")) < self._group.count:
                    if self._ended.wait(POLL_SECONDS):
                        return
                self._signals.requested = next(iter(notices.values()))
                self._last = 1 + max(map(int, steps.values()))
