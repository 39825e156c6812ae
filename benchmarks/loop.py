"""The whole loop (batches, logging, a checkpoint) against its bare step."""

import pathlib
import tempfile
import time
from collections.abc import Sequence

import jax
import ml_collections

from benchmarks import measuring, train_step
from sibert_jax.checkpoint import Checkpoints
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.processes import SINGLE_PROCESS
from sibert_jax.runtime.profiling import Profiler
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.stop_step import StopStep
from sibert_jax.runtime.watchdog import Watchdog
from sibert_jax.train.loop import Loop, Services
from sibert_jax.train.run import data_facts, provenance
from sibert_jax.train.step import TrainState

BARE, LOOP = "bare compiled step", "whole loop"


class UnevaluatedLoop(Loop):
    """The loop with everything it does except evaluation, which its own speed leaves out too."""

    def evaluate(self, step: int, state: TrainState):
        """Writes the row that is waiting, as an evaluation would."""
        del step, state
        self.flush()


def loop_config() -> ml_collections.ConfigDict:
    """Mini SIBERT on the builtin text for 100 steps: five logged rows and one checkpoint."""
    config = train_step.model_config("sibert")
    config.train.num_steps = 100
    config.train.log_every_steps = 20
    config.checkpoint.every_steps = 100
    return config


def measure(
    config: ml_collections.ConfigDict | None = None,
    *,
    repeats: int = 3,
    devices: Sequence[jax.Device] | None = None,
) -> measuring.Result:
    """Wall-clock speed of `Loop.run` against its compiled step on batches that are on the device.

    Both take the same steps on the same batches from the same state. The loop's time holds making
    the batches, logging and the checkpoints, with the wait for the last one, though not building
    the session, opening the files and compiling.

    Args:
      config: a run of `train.num_steps` steps, default `loop_config()`.
      repeats: runs of each.
      devices: what the mesh is made of; None: all of them.
    """
    run = train_step.start(loop_config() if config is None else config, devices)
    num_steps = run.trainer.run.train.num_steps
    timed = {BARE: train_step.step_timer(run, num_steps), LOOP: lambda: run_loop(run)}
    return measuring.Result(
        title=f"{num_steps} steps of mini SIBERT: the whole loop and its bare step",
        unit="tokens/s",
        more_is_better=True,
        baseline=f"the {BARE}",
        rows=measuring.rows(measuring.in_turn(timed, repeats), BARE),
        notes=["The loop makes the batches, logs and writes a checkpoint; it does not evaluate."],
    )


def run_loop(run: train_step.Started) -> float:
    """Runs the loop to its last step in a directory of its own; returns tokens/s."""
    config, stop = run.trainer.run, StopRequest()
    tokens = config.train.num_steps * run.tokens_per_step
    with (
        tempfile.TemporaryDirectory() as name,
        Checkpoints(pathlib.Path(name) / "checkpoints", config.checkpoint.keep) as checkpoints,
        Watchdog(config.train.watchdog_secs) as watchdog,
    ):
        directory = pathlib.Path(name)
        services = Services(
            directory,
            SINGLE_PROCESS,
            stop,
            StopStep(stop, SINGLE_PROCESS),
            checkpoints,
            Goodput(directory / "goodput.json", watchdog, time.monotonic()),
            Profiler(None, directory / "profile", 0, measuring.say),
        )
        state = train_step.copy(run.state)
        facts = data_facts(config, run.data) | provenance(config, run.trainer.shapes, run.data)
        with UnevaluatedLoop(run.trainer, run.data, state, facts, services) as loop:
            since = time.perf_counter()
            jax.block_until_ready(loop.run())
            return tokens / (time.perf_counter() - since)
