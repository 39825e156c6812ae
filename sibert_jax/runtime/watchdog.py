"""Ends a hanging run, after showing where every thread is."""

import faulthandler
import math
import os
import sys
import threading
import time

LONG = ("start", "compile", "restore")  # phases that may take `LONGER` times as long
LONGER = 4
WAITING = "waiting"  # a phase without a time limit
POLLS = 20  # checks within the allowed time


class Watchdog:
    """A thread that ends the process if a step or another phase exceeds its time.

    A Python thread cannot check while C code holds the interpreter lock; in that case
    faulthandler's timer, set to twice the time and renewed at each check, ends the process.

    Args:
      secs: seconds that a phase may take, four times as many for long ones; 0: no watchdog.

    Example:
      >>> with Watchdog(secs=60.0) as watchdog:
      ...     watchdog.expect("step")  # to end within a minute
      ...     watchdog.expect("evaluation")  # the step has ended; so must this
    """

    def __init__(self, secs: float):
        self._secs = secs
        self._done = threading.Event()
        self._expected = ("start", time.monotonic())
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self):
        if self._secs > 0:
            self._thread.start()
        return self

    def __exit__(self, *exception):
        if self._secs > 0:
            self._done.set()
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def expect(self, phase: str):
        """Records that a phase begins and the previous one has ended."""
        self._expected = (phase, time.monotonic())

    def _watch(self):
        interval = self._secs / POLLS
        looked = time.monotonic()
        while True:
            phase, since = self._expected
            allowed = math.inf if phase == WAITING else self._secs
            allowed *= LONGER if phase in LONG else 1
            if phase == WAITING:
                faulthandler.cancel_dump_traceback_later()
            else:
                faulthandler.dump_traceback_later(2 * allowed, exit=True, file=sys.__stderr__)
            if self._done.wait(interval):
                return
            now = time.monotonic()
            if now - looked > interval + self._secs / 2:  # the process itself was stopped
                self.expect(phase)
            elif self._expected == (phase, since) and now - since > allowed:
                _end(phase, allowed)
            looked = now


def _end(phase: str, allowed: float):
    try:
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        what = "a step" if phase in ("step", "input") else f"the phase {phase!r}"
        print(
            f"error: {what} has not ended within {allowed:g} s (train.watchdog_secs); the stacks "
            "of all threads are above. Run again to resume from the newest checkpoint.",
            file=sys.__stderr__,
            flush=True,
        )
    finally:
        os._exit(1)
