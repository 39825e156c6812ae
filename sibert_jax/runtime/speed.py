"""Measures the speed of training over exactly the steps of each logged row."""

import concurrent.futures
import time
from typing import Any, NamedTuple

import jax
import numpy as np


class Interval(NamedTuple):
    """The steps from one logged row to the next."""

    step: int  # the last step
    num_steps: int
    work: np.ndarray  # examples, tokens, FLOP
    pauses: list[tuple[float, float]]  # begin and end of other work before the last step
    end: concurrent.futures.Future  # the time when the device finished the last step


class Speed:
    """Measures intervals of steps, from the end of one on the device to the end of the next.

    The host may run a step ahead of the device, so the time when a row is written says little: a
    thread waits for the last step of each interval and records the time.
    """

    def __init__(self):
        self._waiter = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="speed")
        self.restart(0)

    def restart(self, step: int) -> None:
        """Starts an interval after a step; the device should be idle."""
        self._since = time.perf_counter()
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._step, self._pauses, self._work = step, [], np.zeros(3)

    def pause(self, begin: float, end: float) -> None:
        """Excludes a time span by `time.perf_counter()`, such as an evaluation."""
        self._pauses.append((begin, end))

    def add(self, examples: int, tokens: int, flops: float) -> None:
        """Counts the work of one update."""
        self._work += (examples, tokens, flops)

    def end(self, step: int, result: Any) -> Interval:
        """Ends an interval with a step that has just been dispatched, and starts the next.

        Args:
          step: number of the step, from 1.
          result: arrays that are ready when the step is done.
        """
        end = self._waiter.submit(_time_when_computed, result)
        interval = Interval(step, step - self._step, self._work, self._pauses, end)
        self._begin(step)
        return interval

    def seconds(self, interval: Interval) -> float:
        """Returns the seconds that an interval took; call once per interval, in order."""
        begin, self._since = self._since, interval.end.result()
        # A pause may begin while the device still computes earlier steps.
        paused = sum(max(0.0, stop - max(start, begin)) for start, stop in interval.pauses)
        return max(self._since - begin - paused, 1e-9)

    def close(self) -> None:
        """Ends the thread once it has finished waiting."""
        self._waiter.shutdown(wait=False)


def _time_when_computed(result: Any) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()


def speed_row(interval: Interval, seconds: float, peak_flops: float | None) -> dict[str, float]:
    """Returns the speed of all devices over an interval, and the model FLOP utilization if known.

    Args:
      interval: the steps.
      seconds: the time they took.
      peak_flops: total peak FLOP/s of all devices; None: unknown.
    """
    examples, tokens, flops = (interval.work / seconds).tolist()
    row = {"perf/tokens_per_second": tokens, "perf/examples_per_second": examples}
    if peak_flops is not None:
        row["perf/mfu"] = flops / peak_flops
    return row
