"""Prepares batches ahead of their use, in one thread."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

JOIN_SECONDS = 5.0  # a hanging read must not keep the process from ending


def prefetch(
    batch_fn: Callable[[int], Any], first_step: int, num_steps: int, depth: int = 4
) -> Generator[tuple[int, Any], None, None]:
    """Calls `batch_fn` for `num_steps` steps from `first_step`, up to `depth` ahead of the reader.

    Args:
      batch_fn: returns the batch of a step; called in one other thread.
      first_step: the first step.
      num_steps: the number of steps.
      depth: maximum number of finished batches waiting, at least 1.

    Yields:
      (step, batch). The thread ends with the generator or its `close`. An exception of `batch_fn`
      is raised in place of its batch.

    Example:
      >>> with contextlib.closing(prefetch(lambda step: step**2, 3, num_steps=2)) as batches:
      ...     list(batches)
      [(3, 9), (4, 16)]
    """
    steps = range(first_step, first_step + num_steps)
    finished, stop = queue.Queue(depth), threading.Event()

    def produce():
        error = None
        for step in steps:
            try:
                batch = batch_fn(step)
            except BaseException as raised:
                batch, error = None, raised
            finished.put((batch, error))
            if error is not None or stop.is_set():
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
        with contextlib.suppress(queue.Empty):  # so that a blocked put returns
            while True:
                finished.get_nowait()
        thread.join(JOIN_SECONDS)
