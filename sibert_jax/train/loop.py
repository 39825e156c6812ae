"""Train, log, evaluate, save; start again where a run stopped. The order is the whole point."""

import contextlib
import pathlib
import signal
import sys
import time
from collections.abc import Sequence

import jax
import ml_collections

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.data import prefetch
from sibert_jax.train import build, metrics, sharding, workdir
from sibert_jax.train.errors import TrainingError
from sibert_jax.train.session import Session, check_divisible
from sibert_jax.train.step import TrainState, Window


def train(
    config: ml_collections.ConfigDict,
    directory: str | pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
) -> TrainState:
    """Runs a config to its last step, from the newest checkpoint of `directory` if there is one.

    Args:
      config: every key of `default_config()`.
      directory: the workdir, made if need be.
      devices: what the mesh is made of; None: all of them.

    Returns:
      The final state; after SIGTERM or SIGINT the state that was saved.

    Raises:
      ConfigError, DataError, CheckpointError, TrainingError: one sentence each.
    """
    run = build.run_config(config)
    directory = pathlib.Path(directory)
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    check_divisible(run, mesh)
    workdir.claim(directory, config)
    use_compilation_cache(run.train.compilation_cache_dir)
    session = Session(run, mesh, *build.load_task(run, progress=say))
    with Checkpoints(directory / "checkpoints", run.checkpoint.keep) as checkpoints:
        state = session.start(checkpoints)
        if jax.process_index() == 0:
            described = workdir.describe_run(mesh, state.params, session.description())
            workdir.write_json(directory / "run.json", described)
            say("\n".join(described["parameters"]))
        with Loop(session, checkpoints, directory, state) as loop:
            return loop.run()


class Loop:
    """Steps from a state to the last one, with everything that happens between two steps."""

    def __init__(
        self,
        session: Session,
        checkpoints: Checkpoints,
        directory: pathlib.Path,
        state: TrainState,
    ):
        self.session, self.checkpoints, self.state = session, checkpoints, state
        self.train = session.run.train
        self.first = int(state.step)
        resume_step = None if self.first == 0 else self.first
        tokens_per_step = session.batch_size * session.run.seq_len
        self.progress = metrics.Progress(self.first, self.train.num_steps, tokens_per_step)
        self.writers = [
            metrics.MetricsFile(directory / "metrics.jsonl", resume_step),
            metrics.TensorBoard(directory / "tensorboard", resume_step),
        ]
        self.pending: tuple[int, Window] | None = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for closing in (*self.writers, self.progress):
            closing.close()

    def run(self) -> TrainState:
        """Runs to the last step, or to the step at which a signal asks to stop."""
        num_steps, state = self.train.num_steps, self.state
        if self.first:
            say(f"resuming at step {self.first:,} of {num_steps:,}")
        else:
            self.evaluate(0, state)
        batches = prefetch(self.session.batch, self.first, num_steps - self.first)
        with contextlib.closing(batches), StopRequest() as stop:
            for index, batch in batches:
                state, window = self.session.step(state, batch)
                step = index + 1
                self.flush()  # of the step before: the device works on this one meanwhile
                done = step == num_steps or stop.requested
                if step % self.train.log_every_steps == 0 or step == num_steps:
                    self.pending = (step, window)
                if step == num_steps or is_due(step, self.train.eval_every_steps):
                    self.evaluate(step, state)
                if done or is_due(step, self.session.run.checkpoint.every_steps):
                    self.save(step, state, window)
                if done:
                    break
        self.flush()
        self.checkpoints.wait()
        if stop.requested and int(state.step) < num_steps:
            say(f"{stop.requested}: saved step {int(state.step):,}; run again to resume")
        return state

    def flush(self):
        """Writes the row that is waiting; stops the run if it is not finite."""
        if self.pending is None:
            return
        (step, window), self.pending = self.pending, None
        self.check_finite(window)
        row = metrics.window_row(window, self.session.weight_decay)
        speed = self.progress.tokens_per_second(step)
        device = self.session.mesh.devices.flat[0]
        row |= metrics.speed_row(
            speed,
            self.session.task.flops_per_token(self.session.run.seq_len),
            device.device_kind,
            self.session.mesh.devices.size,
        )
        self.write(step, row)
        self.progress.show(step, row)

    def write(self, step: int, row: dict[str, float]):
        """Hands a row to every writer; only the first process has a say."""
        if jax.process_index() == 0:
            for writer in self.writers:
                writer.write(step, row)

    def evaluate(self, step: int, state: TrainState):
        """Writes the held-out metrics."""
        self.flush()
        with self.paused():
            row = self.session.evaluate(state.params)
        self.write(step, row)
        self.progress.say(
            f"step {step:>7,}  " + "  ".join(f"{name} {value:.4f}" for name, value in row.items())
        )

    def save(self, step: int, state: TrainState, window: Window):
        """Starts a checkpoint; rows up to its step are written first, so a resume repeats none."""
        self.flush()
        self.check_finite(window)
        with self.paused():
            self.session.save(self.checkpoints, state, step)

    def check_finite(self, window: Window):
        """Stops before anything that is not finite is saved."""
        if (bad := int(window.bad_step)) >= 0:
            self.checkpoints.wait()
            raise TrainingError(
                f"the loss or the gradient at step {bad} is not finite; the newest checkpoint is "
                f"of step {self.checkpoints.latest_step() or 'none'}. Lower the learning rate, or "
                "see which example it is with train.log_every_steps=1."
            )

    @contextlib.contextmanager
    def paused(self):
        """Leaves what happens inside out of the speed."""
        since = time.perf_counter()
        yield
        self.progress.pause(time.perf_counter() - since)


class StopRequest:
    """SIGTERM and SIGINT ask to stop at the next step boundary; repeating them changes nothing."""

    def __init__(self):
        self.requested = ""

    def __enter__(self):
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _note(self, number, frame):
        del frame
        self.requested = signal.Signals(number).name

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def is_due(step: int, every_steps: int) -> bool:
    """Whether something that happens every so many steps happens after `step`; 0: never."""
    return every_steps > 0 and step % every_steps == 0


def use_compilation_cache(directory: str) -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again."""
    if directory:
        path = pathlib.Path(directory).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def say(text: str) -> None:
    """A line on the terminal."""
    print(text, file=sys.stderr, flush=True)
