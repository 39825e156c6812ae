"""Batches that the input pipeline makes while the step takes one; below 1 the step waits."""

import time
from collections.abc import Callable, Sequence

import jax
import ml_collections

from benchmarks import measuring, train_step

STEPS, MADE = "steps", "batches made"


def measure(
    configs: dict[str, ml_collections.ConfigDict] | None = None,
    *,
    num_steps: int = 10,
    repeats: int = 5,
    devices: Sequence[jax.Device] | None = None,
) -> measuring.Result:
    """Batches/s of the pipeline alone against steps/s of the step alone.

    Args:
      configs: group to run; default mini SIBERT on packed text and on sentence pairs.
      num_steps: steps, and batches, of one repeat.
      repeats: of each.
      devices: what the mesh is made of; None: all of them.
    """
    rows = []
    for group, config in (default_configs() if configs is None else configs).items():
        run = train_step.start(config, devices)
        timed = {
            STEPS: _steps(run, train_step.step_timer(run, num_steps)),
            MADE: _batches(run, num_steps),
        }
        rows += measuring.rows(measuring.in_turn(timed, repeats), STEPS, group)
    return measuring.Result(
        title="Input pipeline and step of mini SIBERT, each alone",
        unit="a second",
        more_is_better=True,
        baseline="the steps",
        rows=rows,
        notes=["One thread makes the batches, from tokens that are cached on disk."],
    )


def default_configs() -> dict[str, ml_collections.ConfigDict]:
    """Mini SIBERT on both kinds of examples."""
    packed, pairs = (train_step.model_config("sibert") for _ in range(2))
    pairs.task.nsp, pairs.model.num_segments = True, 2
    return {"packed text": packed, "sentence pairs": pairs}


def _steps(run: train_step.Started, tokens_per_second: Callable[[], float]) -> Callable[[], float]:
    return lambda: tokens_per_second() / run.tokens_per_step


def _batches(run: train_step.Started, count: int) -> Callable[[], float]:
    made = 0

    def timed() -> float:
        nonlocal made
        since = time.perf_counter()
        for index in range(made, made + count):
            run.data.train.batch(index, slice(None))
        made += count
        return count / (time.perf_counter() - since)

    return timed
