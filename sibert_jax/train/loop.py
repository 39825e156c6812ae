"""Train, log, evaluate, save; start again where a run stopped. The order is the whole point."""

import contextlib
import pathlib
import time
from collections.abc import Sequence

import jax
import ml_collections

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.data import prefetch
from sibert_jax.errors import ConfigError, TrainingError
from sibert_jax.files import user_path, write_json
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.peak_flops import peak_flops
from sibert_jax.runtime.processes import ALONE, Hosts
from sibert_jax.runtime.profiling import ProfiledSteps, Profiler, marked
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.stop_step import StopStep
from sibert_jax.runtime.terminal import say
from sibert_jax.runtime.watchdog import WAITING, Watchdog
from sibert_jax.tasks.task import Batch
from sibert_jax.train import build, metrics, results, sharding, workdir, writers
from sibert_jax.train.claim import Claim
from sibert_jax.train.health import BadStepError, Health, with_counts
from sibert_jax.train.replay import step_twice
from sibert_jax.train.resolve import resolve
from sibert_jax.train.session import Session, check_divisible, check_kernels
from sibert_jax.train.speed import Speed, Stretch, speed_row
from sibert_jax.train.step import Report, TrainState


def train(
    config: ml_collections.ConfigDict,
    directory: str | pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
    stop: StopRequest | None = None,
    hosts: Hosts = ALONE,
    started: float | None = None,
    profile: ProfiledSteps | None = None,
) -> TrainState:
    """Runs a config to its last step, from the newest checkpoint of `directory` if there is one.

    Args:
      config: every key of `default_config()`.
      directory: the workdir, made if need be.
      devices: what the mesh is made of; None: all of them.
      stop: the caller's, entered already; None: signals are caught while this function runs.
      hosts: the processes that run this together, from `launch.join`.
      started: `time.monotonic()` when the program began; None: now.
      profile: steps to trace into `profile` of the workdir; None: none.

    Returns:
      The final state; after SIGTERM or SIGINT the state that was saved.

    Raises:
      ConfigError, DataError, CheckpointError, TrainingError: one sentence each.
      Stopped: SIGTERM or SIGINT before there was a state to save.
    """
    started = time.monotonic() if started is None else started
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest()) if stop is None else stop
        directory = user_path(directory)
        config = resolve(config, directory, hosts.say)
        run = build.run_config(config)
        if hosts.count > 1:
            hosts.agree("settings", workdir.shared_facts(directory, config))
        mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
        check_processes(hosts)
        check_divisible(run, mesh)
        check_kernels(run, mesh)
        if profile is not None and run.train.num_steps:  # of epochs, the data has to say first
            profile.check(run.train.num_steps)
        watchdog = stack.enter_context(Watchdog(run.train.watchdog_secs))
        if hosts.is_first:
            claim = stack.enter_context(Claim(directory, config))
        else:
            watchdog.expect(WAITING)  # for process 0 to tokenise, as long as it lives: see hosts.py
        hosts.check_shared(directory)
        sums = directory / "goodput.json" if hosts.is_first else None
        goodput = Goodput(sums, watchdog, started)
        stack.callback(goodput.write)
        goodput.write()  # counts a start that is killed before its first row
        use_compilation_cache(run.train.compilation_cache_dir)

        def progress(text: str):
            goodput.renew()
            hosts.say(text)

        # Process 0 fills the cache of tokens before the others look into it.
        loaded = hosts.first_then_others("data", lambda: build.load_task(run, progress))
        session = Session(run, mesh, *loaded)
        num_steps = session.run.train.num_steps
        if profile is not None:
            profile.check(num_steps)
        hosts.say(metrics.plan(num_steps, session.batch_size, session.data.steps_per_epoch))
        hosts.agree("data", {"fingerprint": session.data.fingerprint})
        checkpoints = stack.enter_context(
            Checkpoints(directory / "checkpoints", run.checkpoint.keep, say)
        )
        state = session.start(checkpoints, goodput.phase, hosts.say)
        goodput.write()
        stop.defer()
        if hosts.is_first:
            claim.begin(int(state.step), hosts.say)
            described = workdir.describe_run(mesh, state.params, session.description())
            write_json(directory / "run.json", described)
            hosts.say("\n".join(described["parameters"]))
            session.data.tokenizer.save(directory / "vocab.txt")
        stop_step = stack.enter_context(StopStep(stop, hosts))
        traced, step = profile if hosts.is_first else None, int(state.step)
        profiler = stack.enter_context(Profiler(traced, directory / "profile", step, hosts.say))
        with Loop(
            session, checkpoints, directory, state, stop, stop_step, hosts, goodput, profiler
        ) as loop:
            state = loop.run()
        if (step := int(state.step)) == num_steps:
            with goodput.phase("evaluation"):
                results.write(session, state.params, directory, hosts.say)
        hosts.say(goodput.line(step))
        return state


class Loop:
    """Steps from a state to the last one, with everything that happens between two steps."""

    def __init__(
        self,
        session: Session,
        checkpoints: Checkpoints,
        directory: pathlib.Path,
        state: TrainState,
        stop: StopRequest,
        stop_step: StopStep,
        hosts: Hosts,
        goodput: Goodput,
        profiler: Profiler,
    ):
        self.session, self.checkpoints, self.state = session, checkpoints, state
        self.stop, self.stop_step, self.goodput = stop, stop_step, goodput
        self.profiler = profiler
        self.train = session.run.train
        self.first = int(state.step)
        self.progress = metrics.Progress(
            self.first, self.train.num_steps, silent=not hosts.is_first
        )
        self.speed = Speed()
        kept = self.first or -1  # step 0 is evaluated again
        self.writers = []
        if hosts.is_first:
            self.writers.append(writers.MetricsFile(directory / "metrics.jsonl", kept, hosts.say))
            self.writers.append(writers.TensorBoard(directory / "tensorboard", kept, hosts.say))
        self.pending: tuple[Stretch, Report] | None = None

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
            if self.train.on_bad_step == "rollback":
                with self.goodput.phase("checkpoint"):
                    self.session.save(self.checkpoints, state, 0)
        with self.goodput.phase("step"):
            while True:
                try:
                    state = self.run_from(state)
                    break
                except BadStepError as error:
                    state = self.roll_back(error.health)
        with self.goodput.phase("checkpoint"):
            self.checkpoints.wait()
        step = int(state.step)
        if step < self.train.num_steps:
            self.progress.say(f"{self.stop.requested}: saved step {step:,}; run again to resume")
        return state

    def run_from(self, state: TrainState) -> TrainState:
        """The steps from a state on; raises BadStepError at one that must not be passed."""
        first, num_steps = int(state.step), self.train.num_steps
        offset = int(state.health.batch_offset)
        self.profile(first, state)
        jax.block_until_ready(state)
        self.speed.restart(first)
        batches = prefetch(self.session.batch, first + offset, num_steps - first)
        with contextlib.closing(batches):
            for index, batch in self.goodput.each("input", batches):
                step = index - offset + 1
                with marked(step):
                    state, report = self.take_step(step, state, batch)
                self.count(batch)
                pending = None
                if step % self.train.log_every_steps == 0 or step == num_steps:
                    pending = (self.speed.end(step, report), report)
                self.profile(step, state)
                self.flush()  # of the step before: the device works on this one meanwhile
                self.pending = pending
                if step == num_steps or is_due(step, self.train.eval_every_steps):
                    self.check(report)
                    self.evaluate(step, state)
                done = self.stop_step.reached(step) or step == num_steps
                if done or is_due(step, self.session.run.checkpoint.every_steps):
                    self.save(step, state, report)
                if done:
                    break
        self.flush()
        return state

    def take_step(self, step: int, state: TrainState, batch: Batch) -> tuple[TrainState, Report]:
        """One step, computed twice if it is due to be; a new length is compiled before it."""
        if not self.session.is_compiled(batch):
            with self.paused("compile"):
                self.session.compile(batch)
        self.goodput.steps += 1
        if is_due(step, self.train.replay_every_steps):
            return step_twice(self.session.step, state, batch)
        return self.session.step(state, batch)

    def profile(self, done: int, state: TrainState):
        """Starts or ends the trace, if it is due now that so many updates are done."""
        if self.profiler.is_due(done):
            jax.block_until_ready(state)  # what comes before is in the trace whole, or not at all
            with self.paused("other"):
                self.profiler.turn()

    def roll_back(self, bad: Health) -> TrainState:
        """The state of the checkpoint before a bad step, set to go on with the data after it."""
        policy, count = self.session.bad_steps, int(bad.rollbacks) + 1
        self.checkpoints.wait()
        if policy.action != "rollback" or count > policy.max_rollbacks:
            newest = self.checkpoints.latest_step()
            kept = "there is no checkpoint" if newest is None else f"resuming is from step {newest}"
            raise TrainingError(
                f"{policy.sentence(bad)}; {kept}. Lower the learning rate, or resume "
                f"with another train.on_bad_step (now {policy.action}); "
                "train.log_every_steps=1 shows the steps before it."
            )
        # Not one that a signal brought about: a run that was never stopped has none of these.
        every = self.session.run.checkpoint.every_steps
        with self.goodput.phase("restore"):
            step = self.checkpoints.latest_step(multiple_of=every, again=True)
        if step is None:
            raise TrainingError(
                f"{policy.sentence(bad)}; no checkpoint verifies that the run could go back to. "
                "Start it in a new --workdir."
            )
        with self.goodput.phase("restore"):
            self.checkpoints.delete_after(step)
            state = self.session.restore(self.checkpoints, step)
        passed = int(bad.bad_step) - step
        self.pending = None
        for writer in self.writers:
            writer.rewind(step)
        self.progress.say(
            f"{policy.sentence(bad)}: back at step {step:,}, past the {passed:,} batches since it "
            f"(rollback {count} of train.max_rollbacks={policy.max_rollbacks})"
        )
        offset = int(bad.batch_offset) + passed
        health = with_counts(state.health, batch_offset=offset, rollbacks=count)
        return state.replace(health=health)

    def flush(self):
        """Writes the row that is waiting; raises BadStepError if it holds a bad step."""
        if self.pending is None:
            return
        (stretch, report), self.pending = self.pending, None
        self.check(report)
        row = metrics.report_row(report, self.session.weight_decay)
        devices = self.session.mesh.devices
        peak = peak_flops(devices.flat[0].device_kind, self.session.run.model.dtype)
        seconds = self.speed.seconds(stretch)
        row |= speed_row(stretch, seconds, None if peak is None else peak * devices.size)
        self.write(stretch.step, row)
        self.goodput.write_now_and_then()
        self.progress.show(stretch.step, row, seconds / stretch.num_steps)

    def count(self, batch: Batch):
        """Adds a batch to the work that the speed is measured by, padding included."""
        num_rows, seq_len = batch["tokens"].shape
        tokens = num_rows * seq_len
        self.speed.add(num_rows, tokens, tokens * self.session.task.flops_per_token(seq_len))

    def write(self, step: int, row: dict[str, float]):
        """Hands a row to every writer; only the first process has any."""
        for writer in self.writers:
            writer.write(step, row)

    def evaluate(self, step: int, state: TrainState):
        """Writes the held-out metrics."""
        self.flush()
        with self.paused("evaluation"):
            row = self.session.evaluate(state.params)
        self.write(step, row | self.goodput.row(step))
        self.progress.say(
            f"step {step:>7,}  " + "  ".join(f"{name} {value:.4f}" for name, value in row.items())
        )

    def save(self, step: int, state: TrainState, report: Report):
        """Starts a checkpoint; rows up to its step are written first, so a resume repeats none."""
        self.flush()
        self.check(report)
        with self.paused("checkpoint"):
            self.session.save(self.checkpoints, state, step)

    def check(self, report: Report):
        """Stops before anything that comes of a bad step is saved."""
        if int(report.health.bad_step) >= 0:
            raise BadStepError(report.health)

    @contextlib.contextmanager
    def paused(self, phase: str):
        """Counts what happens inside as a phase, and leaves it out of the speed."""
        since = time.perf_counter()
        with self.goodput.phase(phase):
            yield
        self.speed.pause(since, time.perf_counter())


def is_due(step: int, every_steps: int) -> bool:
    """Whether something that happens every so many steps happens after `step`; 0: never."""
    return every_steps > 0 and step % every_steps == 0


def check_processes(hosts: Hosts) -> None:
    """Refuses devices of processes that this one does not know of."""
    if jax.process_count() != hosts.count:
        raise ConfigError(
            f"JAX sees devices of {jax.process_count()} processes but this run is of "
            f'{hosts.count}; set distributed.start to "auto" or "explicit".'
        )


def use_compilation_cache(directory: str) -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again."""
    if directory:
        path = user_path(directory)
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
