"""The training loop: train, log, evaluate, save. The order of events matters here."""

import contextlib
import dataclasses
import pathlib
import time

import jax

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.checkpoint.manifest import BEST
from sibert_jax.data import prefetch
from sibert_jax.errors import TrainingError
from sibert_jax.files import flatten
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.peak_flops import peak_flops
from sibert_jax.runtime.processes import ProcessGroup
from sibert_jax.runtime.profiling import Profiler, marked
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.speed import Interval, Speed, speed_row
from sibert_jax.runtime.stop_step import StopStep
from sibert_jax.runtime.terminal import Progress
from sibert_jax.tasks.task import Batch, TaskData
from sibert_jax.train import sharding, writers
from sibert_jax.train.bad_steps import BadStepError, Health, with_counts
from sibert_jax.train.best import Best
from sibert_jax.train.continuing import restore
from sibert_jax.train.diagnostics import metrics_row
from sibert_jax.train.evaluate import Evaluator
from sibert_jax.train.optimizer_table import averaged_params
from sibert_jax.train.step import StepReport, TrainState
from sibert_jax.train.trainer import Shapes, Trainer


def load_batch(shapes: Shapes, data: TaskData, index: int) -> Batch:
    """Loads the batch of update `index` (from 0) onto the devices."""
    return sharding.load_batch(data.train, index, shapes.mesh, shapes.batch_size)


@dataclasses.dataclass(frozen=True)
class Services:
    """The environment of a run: its directory, processes, signals, checkpoints and clocks."""

    directory: pathlib.Path
    processes: ProcessGroup
    stop: StopRequest
    stop_step: StopStep
    checkpoints: Checkpoints
    goodput: Goodput
    profiler: Profiler


class Loop:
    """The steps of a run, with everything that happens between them."""

    def __init__(
        self,
        trainer: Trainer,
        data: TaskData,
        state: TrainState,
        facts: dict,
        services: Services,
    ):
        self.trainer, self.data, self.state = trainer, data, state
        self.services, self.goodput = services, services.goodput
        self.run_config, self.train = trainer.run, trainer.run.train
        self.evaluator = Evaluator(trainer.shapes)
        self.facts = facts
        self.first = int(state.step)
        self.best = Best.at(services.checkpoints, self.first)
        processes = services.processes
        self.progress = Progress(self.first, self.train.num_steps, silent=not processes.is_first)
        self.speed = Speed()
        kept = self.first or -1  # step 0 is evaluated again
        self.writers = []
        if processes.is_first:
            settings = flatten(dataclasses.asdict(trainer.run))
            self.writers = writers.open_all(
                self.train.writer_names, services.directory, kept, settings, processes.say
            )
        self.pending: tuple[Interval, StepReport] | None = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for closing in (*self.writers, self.progress, self.speed):
            closing.close()

    def run(self) -> TrainState:
        """Runs to the last step, or to the step at which a signal asks to stop."""
        state = self.state
        if self.first:
            self.progress.say(f"resuming at step {self.first:,} of {self.train.num_steps:,}")
        else:
            self.evaluate(0, state)
        is_new = self.first == 0 or not self.services.checkpoints.steps()
        if is_new and self.train.on_bad_step == "rollback":
            with self.goodput.phase("checkpoint"):
                self.trainer.save(self.services.checkpoints, state, self.first, self.facts)
        with self.goodput.phase("step"):
            while True:
                try:
                    state = self.run_from(state)
                    break
                except BadStepError as error:
                    state = self.roll_back(error.health)
        with self.goodput.phase("checkpoint"):
            self.services.checkpoints.wait()
        step = int(state.step)
        if self.has_stopped_early:
            self.progress.say(
                f"{self.data.main_metric} has not improved in {self.best.evaluations_since} "
                f"evaluations (train.stop_after; best: step {self.best.step}): ended at step "
                f"{step:,} of {self.train.num_steps:,}"
            )
        elif step < self.train.num_steps:
            self.progress.say(
                f"{self.services.stop.requested}: saved step {step:,}; run again to resume"
            )
        return state

    @property
    def has_stopped_early(self) -> bool:
        """Whether `train.stop_after` evaluations in a row have brought no improvement."""
        return 0 < self.train.stop_after <= self.best.evaluations_since

    def run_from(self, state: TrainState) -> TrainState:
        """Runs the steps from a state on; raises BadStepError at one that must not be passed."""
        first, num_steps = int(state.step), self.train.num_steps
        offset = int(state.health.batch_offset)
        self.profile(first, state)
        jax.block_until_ready(state)
        self.speed.restart(first)
        count = 0 if self.has_stopped_early else num_steps - first
        with contextlib.closing(prefetch(self.batch, first + offset, count)) as batches:
            for index, batch in self.goodput.each("input", batches):
                step = index - offset + 1
                with marked(step):
                    state, report = self.take_step(step, state, batch)
                self.count(batch)
                pending = None
                if step % self.train.log_every_steps == 0 or step == num_steps:
                    pending = (self.speed.end(step, report), report)
                self.profile(step, state)
                self.flush()  # of the previous step, while the device computes this one
                self.pending = pending
                if step == num_steps or is_due(step, self.train.eval_every_steps):
                    self.check(report)
                    self.evaluate(step, state)
                done = self.services.stop_step.reached(step) or step == num_steps
                done = done or self.has_stopped_early
                is_best = self.run_config.checkpoint.keep_best and self.best.step == step
                if done or is_best or is_due(step, self.run_config.checkpoint.every_steps):
                    self.save(step, state, report)
                if done:
                    break
        self.flush()
        return state

    def batch(self, index: int) -> Batch:
        """Loads the batch of update `index` (from 0) onto the devices."""
        return load_batch(self.trainer.shapes, self.data, index)

    def take_step(
        self, step: int, state: TrainState, batch: Batch
    ) -> tuple[TrainState, StepReport]:
        """Takes one step, twice if a replay is due; a new length is compiled first."""
        if not self.trainer.step.is_compiled(batch):
            with self.paused("compile"):
                self.trainer.step.compile(batch)
        self.goodput.steps += 1
        if is_due(step, self.train.replay_every_steps):
            from sibert_jax.runtime.replay import step_twice

            return step_twice(self.trainer.step, state, batch)
        return self.trainer.step(state, batch)

    def profile(self, done: int, state: TrainState):
        """Starts or ends the profiler trace if that is due after `done` updates."""
        if self.services.profiler.is_due(done):
            jax.block_until_ready(state)  # so that the trace excludes earlier steps
            with self.paused("other"):
                self.services.profiler.turn()

    def roll_back(self, bad: Health) -> TrainState:
        """Restores the checkpoint before a bad step, set to continue with the data after it."""
        policy, count = self.trainer.bad_steps, int(bad.rollbacks) + 1
        self.services.checkpoints.wait()
        if policy.action != "rollback" or count > policy.max_rollbacks:
            newest = self.services.checkpoints.latest_step()
            kept = "there is no checkpoint" if newest is None else f"resuming is from step {newest}"
            raise TrainingError(
                f"{policy.sentence(bad)}; {kept}. Lower the learning rate, or resume "
                f"with another train.on_bad_step (now {policy.action}); "
                "train.log_every_steps=1 shows the steps before it."
            )
        # Not a checkpoint written on a signal: an uninterrupted run would not have it.
        every = self.run_config.checkpoint.every_steps
        with self.goodput.phase("restore"):
            step = self.services.checkpoints.latest_step(multiple_of=every, again=True)
        if step is None:
            raise TrainingError(
                f"{policy.sentence(bad)}; there is no valid checkpoint to roll back to. Start "
                "again in a new --workdir."
            )
        with self.goodput.phase("restore"):
            self.services.checkpoints.delete_after(step)
            state = restore(self.trainer, self.services.checkpoints, step)
        self.best = Best.at(self.services.checkpoints, step)
        passed = int(bad.bad_step) - step
        self.pending = None
        for writer in self.writers:
            writer.rewind(step)
        self.progress.say(
            f"{policy.sentence(bad)}: rolled back to step {step:,}, skipping the {passed:,} "
            f"batches since it (rollback {count} of train.max_rollbacks={policy.max_rollbacks})"
        )
        offset = int(bad.batch_offset) + passed
        health = with_counts(state.health, batch_offset=offset, rollbacks=count)
        return state.replace(health=health)

    def flush(self):
        """Writes the pending row; raises BadStepError if it contains a bad step."""
        if self.pending is None:
            return
        (interval, report), self.pending = self.pending, None
        self.check(report)
        window, health = report
        bad_steps = int(health.skipped) + int(health.rollbacks)
        weight_decay = self.run_config.optim.weight_decay
        row = metrics_row(window.sums, int(window.count), bad_steps, weight_decay)
        devices = self.trainer.shapes.mesh.devices
        peak = peak_flops(devices.flat[0].device_kind, self.run_config.model.dtype)
        seconds = self.speed.seconds(interval)
        row |= speed_row(interval, seconds, None if peak is None else peak * devices.size)
        self.write(interval.step, row)
        self.goodput.write_now_and_then()
        self.progress.show(interval.step, row, seconds / interval.num_steps)

    def count(self, batch: Batch):
        """Counts a batch for the measured speed, padding included."""
        num_rows, seq_len = batch["tokens"].shape
        tokens = num_rows * seq_len
        self.speed.add(num_rows, tokens, tokens * self.trainer.shapes.task.flops_per_token(seq_len))

    def write(self, step: int, row: dict[str, float]):
        """Passes a row to every writer; only the first process has any."""
        for writer in self.writers:
            writer.write(step, row)

    def evaluate(self, step: int, state: TrainState):
        """Evaluates on held-out data and writes the metrics."""
        self.flush()
        with self.paused("evaluation"):
            params = averaged_params(state.opt_state, state.params)
            row = self.evaluator.metrics(params, self.data.valid, self.train.eval_batches)
        if step > 0 and (name := f"eval/{self.data.main_metric}") in row:
            lower = self.data.lower_is_better
            self.best = self.best.after(step, row[name], lower_is_better=lower)
        self.write(step, row | self.goodput.row(step))
        self.progress.say(
            f"step {step:>7,}  " + "  ".join(f"{name} {value:.4f}" for name, value in row.items())
        )

    def save(self, step: int, state: TrainState, report: StepReport):
        """Starts a checkpoint after writing all rows up to its step, so a resume repeats none."""
        self.flush()
        self.check(report)
        with self.paused("checkpoint"):
            facts = self.facts | {BEST: dataclasses.asdict(self.best)}
            self.trainer.save(self.services.checkpoints, state, step, facts)

    def check(self, report: StepReport):
        """Raises BadStepError before results of a bad step are saved."""
        if int(report.health.bad_step) >= 0:
            raise BadStepError(report.health)

    @contextlib.contextmanager
    def paused(self, phase: str):
        """Times the enclosed code as a phase and excludes it from the speed."""
        since = time.perf_counter()
        with self.goodput.phase(phase):
            yield
        self.speed.pause(since, time.perf_counter())


def is_due(step: int, every_steps: int) -> bool:
    """Tells whether something done every `every_steps` is due after `step`; 0: never."""
    return every_steps > 0 and step % every_steps == 0
