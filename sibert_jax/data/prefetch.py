"""Makes batches ahead of their use, in one thread."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

JOIN_SECONDS = 5.0  # a read that hangs does not keep the process from ending


class Prefetcher(Iterator):
    """A generator of (step, batch) that is a context manager too."""

    def __init__(self, batches):
        self._batches = batches
        self.close = batches.close

    def __next__(self) -> tuple[int, Any]:
        return next(self._batches)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_):
        self.close()


def prefetch(
    batch_fn: Callable[[int], Any], first_step: int, num_steps: int, depth: int = 4
) -> Prefetcher:
    """Calls `batch_fn` for `num_steps` steps from `first_step`, up to `depth` ahead of the reader.

    Args:
      batch_fn: makes the batch of a step; called in one other thread.
      first_step: the first step.
      num_steps: the number of steps.
      depth: how many finished batches may wait, at least 1.

    Returns:
      An iterator of (step, batch); its thread ends with it, with `close`, or with a `with` block.
      An exception of `batch_fn` is raised where its batch would have come.

    Example:
      >>> with prefetch(lambda step: step**2, first_step=3, num_steps=2) as batches:
      ...     list(batches)
      [(3, 9), (4, 16)]
    """
    return Prefetcher(_batches(batch_fn, range(first_step, first_step + num_steps), depth))


def _batches(batch_fn, steps: range, depth: int):
    finished, stop = queue.Queue(depth), threading.Event()

    def produce():
        for step in steps:
            try:
                finished.put((batch_fn(step), None))
            except BaseException as error:
                finished.put((None, error))
                return
            if stop.is_set():
                return

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        for step in steps:
            batch, error = finished.get()
            if error is not None:
                raise error
            yield step, batch
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):  # so that a put that waits for room returns
            while True:
                finished.get_nowait()
        thread.join(JOIN_SECONDS)
