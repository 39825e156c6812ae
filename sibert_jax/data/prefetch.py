"""Makes batches ahead of their use, in one thread."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
JOIN_SECONDS = 5.0


def prefetch(
    batch_fn: Callable[[int], T], first_step: int, num_steps: int, depth: int = 4
) -> "Prefetcher[T]":
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


class Prefetcher(Iterator[tuple[int, T]], Generic[T]):
    """A generator of (step, batch) that is a context manager too."""

    def __init__(self, batches: Generator[tuple[int, T], None, None]):
        self._batches = batches

    def __next__(self) -> tuple[int, T]:
        return next(self._batches)

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Ends the iterator and its thread; may be called twice."""
        self._batches.close()


def _batches(batch_fn, steps: range, depth: int):
    finished: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

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
