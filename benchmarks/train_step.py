"""Tokens/s of the whole loop against the bare step, and of the SIBERT step against the BERT step.

Both contestants are compiled before the clock starts and then run in turn in one process, so that
a busy machine is busy for both; a row gives the median over the repeats with the least and the
greatest, and the ratio is taken within each repeat.

    python -m benchmarks loop
    python -m benchmarks models
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import mini
from sibert_jax.checkpoint import Checkpoints
from sibert_jax.train import build, sharding
from sibert_jax.train.goodput import Goodput
from sibert_jax.train.hosts import ALONE
from sibert_jax.train.loop import Loop
from sibert_jax.train.session import Session, check_divisible
from sibert_jax.train.signals import StopRequest
from sibert_jax.train.step import TrainState
from sibert_jax.train.stop_step import StopStep
from sibert_jax.train.watchdog import Watchdog

BARE, LOOP = "bare jitted step", "whole loop"


class Row(NamedTuple):
    """One contestant's figures.

    Attributes:
      name: the contestant.
      tokens_per_second: the median over the repeats.
      least: tokens/s of the slowest repeat.
      greatest: tokens/s of the fastest.
      ratio: the median over the repeats of this speed over the baseline's in the same repeat.
      least_ratio: the least of these ratios.
      greatest_ratio: the greatest.
    """

    name: str
    tokens_per_second: float
    least: float
    greatest: float
    ratio: float
    least_ratio: float
    greatest_ratio: float


class UnevaluatedLoop(Loop):
    """The loop with everything it does except evaluation, which its own speed leaves out too."""

    def evaluate(self, step: int, state: TrainState):
        """Writes the row that is waiting, as an evaluation would."""
        del step, state
        self.flush()


def loop_config() -> ml_collections.ConfigDict:
    """Mini SIBERT on the builtin text for 100 steps: five logged rows and one checkpoint."""
    config = model_config("sibert")
    config.train.num_steps = 100
    config.train.log_every_steps = 20
    config.checkpoint.every_steps = 100
    return config


def model_config(arch: str) -> ml_collections.ConfigDict:
    """`configs/mini.py` for an architecture, with its own optimizer, on the builtin text."""
    config = mini.get_config(arch)
    config.data.source = "builtin"
    config.data.path = config.data.valid_path = ""
    return config


def measure_loop(
    config: ml_collections.ConfigDict | None = None,
    *,
    repeats: int = 3,
    devices: Sequence[jax.Device] | None = None,
) -> list[Row]:
    """Wall-clock speed of `Loop.run` against its compiled step on batches that are on the device.

    Both take the same steps on the same batches from the same state. The loop's time holds making
    the batches, logging and the checkpoints, with the wait for the last one, though not building
    the session, opening the files and compiling.

    Args:
      config: a run of `train.num_steps` steps, default `loop_config()`.
      repeats: runs of each.
      devices: what the mesh is made of; None: all of them.

    Returns:
      A row for the bare step, the baseline, and one for the loop.
    """
    with tempfile.TemporaryDirectory() as directory:
        session, start = _start(loop_config() if config is None else config, directory, devices)
        num_steps = session.run.train.num_steps
        tokens = num_steps * session.batch_size * session.run.seq_len

        def loop() -> float:
            workdir = pathlib.Path(tempfile.mkdtemp(dir=directory))
            stop = StopRequest()
            with (
                Checkpoints(workdir / "checkpoints", session.run.checkpoint.keep) as checkpoints,
                Watchdog(session.run.train.watchdog_secs) as watchdog,
                UnevaluatedLoop(
                    session,
                    checkpoints,
                    workdir,
                    _copy(start),
                    stop,
                    StopStep(stop, ALONE),
                    ALONE,
                    Goodput(workdir / "goodput.json", watchdog, time.monotonic()),
                ) as loop,
            ):
                since = time.perf_counter()
                jax.block_until_ready(loop.run())
                return tokens / (time.perf_counter() - since)

        bare = _step_timer(session, start, num_steps)
        return rows(_in_turn({BARE: bare, LOOP: loop}, repeats), BARE)


def measure_models(
    configs: dict[str, ml_collections.ConfigDict] | None = None,
    *,
    num_steps: int = 10,
    repeats: int = 5,
    devices: Sequence[jax.Device] | None = None,
) -> list[Row]:
    """Speed of the compiled training steps of several runs on batches that are on the device.

    Args:
      configs: name to run, the baseline first; default mini BERT + AdamW and mini SIBERT by the
        recipe.
      num_steps: steps of one repeat.
      repeats: runs of each.
      devices: what the mesh is made of; None: all of them.

    Returns:
      A row a run.
    """
    if configs is None:
        configs = {
            "bert + AdamW": model_config("bert"),
            "sibert + SGD recipe, LAMB head": model_config("sibert"),
        }
    with tempfile.TemporaryDirectory() as directory:
        timed = {
            name: _step_timer(*_start(config, f"{directory}/{name}", devices), num_steps)
            for name, config in configs.items()
        }
        return rows(_in_turn(timed, repeats), next(iter(configs)))


def _start(config, directory: str, devices) -> tuple[Session, TrainState]:
    """A session whose step is compiled, and its first state."""
    run = build.run_config(config)
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    check_divisible(run, mesh)
    session = Session(run, mesh, *build.load_task(run, progress=_say))
    _say(f"compiling the {run.model.arch} step")
    with Checkpoints(pathlib.Path(directory) / "empty", keep=1) as checkpoints:
        return session, session.start(checkpoints)


def _step_timer(session: Session, start: TrainState, num_steps: int) -> Callable[[], float]:
    tokens = num_steps * session.batch_size * session.run.seq_len
    batches = [session.batch(index) for index in range(num_steps)]

    def timed() -> float:
        state = _copy(start)
        since = time.perf_counter()
        for batch in batches:
            state, _ = session.step(state, batch)
        jax.block_until_ready(state)
        return tokens / (time.perf_counter() - since)

    return timed


def _copy(state: TrainState) -> TrainState:
    """A state to be donated, while the first one stays."""
    return jax.block_until_ready(jax.tree.map(jnp.copy, state))


def _in_turn(timed: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Tokens/s of every repeat; each second round goes backwards, so that order favours none."""
    speeds = {name: [] for name in timed}
    for repeat in range(repeats):
        for name in list(timed)[:: -1 if repeat % 2 else 1]:
            speeds[name].append(timed[name]())
            _say(f"repeat {repeat + 1}/{repeats}: {name}, {speeds[name][-1]:,.0f} tokens/s")
    return speeds


def rows(speeds: dict[str, list[float]], baseline: str) -> list[Row]:
    """Medians and ranges of tokens/s, a list of as many repeats for each name."""
    against = np.array(speeds[baseline])
    return [
        Row(name, *_median_and_range(np.array(all_)), *_median_and_range(np.array(all_) / against))
        for name, all_ in speeds.items()
    ]


def _median_and_range(values: np.ndarray) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.min(values)), float(np.max(values))


def table(rows: list[Row]) -> str:
    """Return the rows, the baseline first, as a Markdown table."""
    lines = [f"| run | tokens/s (least–greatest) | of the {rows[0].name} |", "|---|---|---|"]
    lines += [
        f"| {row.name} | {row.tokens_per_second:,.0f} ({row.least:,.0f}–{row.greatest:,.0f}) "
        f"| {row.ratio:.3f} ({row.least_ratio:.3f}–{row.greatest_ratio:.3f}) |"
        for row in rows
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
