"""Runs a config to its last step: resolve, load, build, restore, loop."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import ml_collections
from jax.experimental.compilation_cache import compilation_cache

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path, write_json
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.processes import SINGLE_PROCESS, ProcessGroup
from sibert_jax.runtime.profiling import ProfiledSteps, Profiler
from sibert_jax.runtime.provenance import git_commit
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.stop_step import StopStep
from sibert_jax.runtime.terminal import epochs_line, say
from sibert_jax.runtime.watchdog import WAITING, Watchdog
from sibert_jax.tasks.task import Task, TaskData
from sibert_jax.train import sharding, workdir
from sibert_jax.train.config import RunConfig, run_config
from sibert_jax.train.continuing import continue_from, describe_new_length, restore
from sibert_jax.train.evaluate import write_results
from sibert_jax.train.loop import Loop, Services, load_batch
from sibert_jax.train.optimizer_table import averaged_params
from sibert_jax.train.resolve import resolve
from sibert_jax.train.start import find_rates, fresh_params
from sibert_jax.train.step import TrainState
from sibert_jax.train.trackers import check_installed
from sibert_jax.train.trainer import Shapes, Trainer, check_divisible, check_kernels


def train(
    config: ml_collections.ConfigDict,
    directory: str | pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
    stop: StopRequest | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    started: float | None = None,
    profile: ProfiledSteps | None = None,
) -> TrainState:
    """Trains a config to its last step, resuming from the newest checkpoint of `directory`.

    Args:
      config: a config with every key of `default_config()`.
      directory: the workdir, created if necessary.
      devices: the devices of the mesh; None: all.
      stop: the caller's already entered `StopRequest`; None: signals are caught during the call.
      processes: the processes of this run, from `launch.join`.
      started: `time.monotonic()` when the program started; None: now.
      profile: steps to trace into the folder `profile` of the workdir; None: none.

    Returns:
      The final state; after SIGTERM or SIGINT, the saved state.

    Raises:
      ConfigError, DataError, CheckpointError, TrainingError: one sentence each.
      Stopped: SIGTERM or SIGINT arrived before there was a state to save.
    """
    started = time.monotonic() if started is None else started
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest()) if stop is None else stop
        directory = user_path(directory)
        config = resolve(config, directory, processes.say)
        run = run_config(config)
        if processes.count > 1:
            processes.agree("settings", workdir.shared_facts(directory, config))
        mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
        check_processes(processes)
        check_divisible(run, mesh)
        check_kernels(run, mesh)
        check_installed(run.train.writer_names if processes.is_first else ())
        if profile is not None and run.train.num_steps:  # epochs depend on the data
            profile.check(run.train.num_steps)
        watchdog = stack.enter_context(Watchdog(run.train.watchdog_secs))
        if processes.is_first:
            claim = stack.enter_context(workdir.Claim(directory, config))
        else:
            watchdog.expect(WAITING)  # for process 0 to tokenize, as long as it is alive
        processes.check_shared(directory)
        sums = directory / "goodput.json" if processes.is_first else None
        goodput = Goodput(sums, watchdog, started)
        stack.callback(goodput.write)
        goodput.write()  # so that a start killed before its first row is counted
        use_compilation_cache(run.train.compilation_cache_dir)

        def progress(text: str):
            goodput.renew()
            processes.say(text)

        # Process 0 fills the token cache before the others read it.
        task, data = processes.first_then_others("data", lambda: load_task(run, progress))
        processes.agree("data", {"fingerprint": data.fingerprint})
        shapes = Shapes.of(run, mesh, task)
        checkpoints = stack.enter_context(
            Checkpoints(
                directory / "checkpoints",
                run.checkpoint.keep,
                say,
                keep_best=run.checkpoint.keep_best,
            )
        )
        trainer, state = start(run, shapes, data, checkpoints, goodput, processes.say)
        num_steps = trainer.run.train.num_steps
        if profile is not None:
            profile.check(num_steps)
        processes.say(epochs_line(num_steps, shapes.batch_size, data.steps_per_epoch))
        goodput.write()
        stop.defer()
        if processes.is_first:
            claim.begin(int(state.step), processes.say)
            described = workdir.describe_run(mesh, state.params, data_facts(trainer.run, data))
            write_json(directory / "run.json", described)
            processes.say("\n".join(described["parameters"]))
            data.tokenizer.save(directory / data.tokenizer.file_name)
            task.save(directory)
        stop_step = stack.enter_context(StopStep(stop, processes))
        traced, step = profile if processes.is_first else None, int(state.step)
        profiler = stack.enter_context(Profiler(traced, directory / "profile", step, processes.say))
        services = Services(directory, processes, stop, stop_step, checkpoints, goodput, profiler)
        facts = data_facts(trainer.run, data) | provenance(trainer.run, shapes, data)
        with Loop(trainer, data, state, facts, services) as loop:
            state = loop.run()
        if (step := int(state.step)) == num_steps or loop.has_stopped_early:
            with goodput.phase("evaluation"):
                params = averaged_params(state.opt_state, state.params)
                facts = {"step": step, "stopped_early": step < num_steps}
                write_results(loop.evaluator, params, data, facts, directory, processes.say)
        processes.say(goodput.line(step))
        return state


def load_task(run: RunConfig, progress: Callable[[str], None]) -> tuple[Task, TaskData]:
    """Loads the task of a run and its data; `progress` is called with messages.

    Raises:
      DataError: text, examples, vocabulary or cache are unusable.
    """
    return run.task_type.load(
        run.model,
        run.task,
        run.data,
        global_batch_size=run.train.global_batch_size,
        seed=run.seed,
        progress=progress,
    )


def start(
    run: RunConfig,
    shapes: Shapes,
    data: TaskData,
    checkpoints: Checkpoints,
    goodput: Goodput,
    say: Callable[[str], None],
) -> tuple[Trainer, TrainState]:
    """Restores a checkpoint, continues another run or initializes; compiles the next step.

    Args:
      run: the run; its length may be in epochs and its learning rates open.
      shapes: shapes of its task.
      data: data of its task.
      checkpoints: checkpoints of this run.
      goodput: records the time spent.
      say: called with messages on what has changed.

    Returns:
      The trainer, whose run has its length in steps and learning rates set, and the initial state.
    """
    in_epochs = run.train.num_epochs > 0
    run = run.with_num_steps(data.steps_per_epoch)
    newest = checkpoints.latest_step()
    if newest is None and run.checkpoint.continue_from:
        with goodput.phase("restore"):
            trainer, state = continue_from(run, shapes, data, say)
        run = trainer.run
    elif newest is None:
        with goodput.phase("compile"):
            params = fresh_params(run, shapes)
            if source := run.checkpoint.init_from:
                from sibert_jax.checkpoint import start_from

                facts = provenance(run, shapes, data)
                params = start_from(source, params, facts, keys=run.model.function_keys)
            run = find_rates(run, shapes, params, load_batch(shapes, data, 0))
            trainer = Trainer(run, shapes)
        state = trainer.init(params)
    else:
        check_length(run, newest, in_epochs=in_epochs)
        facts = checkpoints.description(newest)
        check_data(facts, data)
        rates = run.optim.with_rates(facts["learning_rate"], facts["weight_decay"])
        trainer = Trainer(dataclasses.replace(run, optim=rates), shapes)
        with goodput.phase("restore"):
            state = restore(trainer, checkpoints, newest)
        updates = newest - int(state.health.skipped)
        before = run_config(facts["config"])
        if line := describe_new_length(trainer.run, before, newest, updates):
            say(line)
    if (done := int(state.step)) < run.train.num_steps:
        with goodput.phase("compile"):
            index = done + int(state.health.batch_offset)
            trainer.step.compile(data.train.batch(index, slice(0, 1)))
    return trainer, state


def data_facts(run: RunConfig, data: TaskData) -> dict:
    """Returns the facts besides the arrays that the next step depends on."""
    return {
        "learning_rate": run.optim.learning_rate,
        "weight_decay": run.optim.weight_decay,
        "data_fingerprint": data.fingerprint,
        "examples_per_step": run.train.global_batch_size,
    }


def provenance(run: RunConfig, shapes: Shapes, data: TaskData) -> dict:
    """Returns facts about the origin of a checkpoint."""
    return {
        "git_commit": git_commit(),
        "mesh": dict(shapes.mesh.shape),
        "vocab_hash": data.tokenizer.hash,
        "labels": list(shapes.task.labels),
        "score_map": shapes.task.score_map,
        "config": dataclasses.asdict(run),
    }


def check_data(facts: dict, data: TaskData) -> None:
    """Raises ConfigError if the data differs from that of a checkpoint."""
    if "data_fingerprint" not in facts:
        raise ConfigError(
            "the workdir holds imported weights, not a run; start from them in another "
            "--workdir, with --config.checkpoint.init_from."
        )
    if facts["data_fingerprint"] != data.fingerprint:
        raise ConfigError(
            "the data has changed since the checkpoint was written (fingerprint "
            f"{facts['data_fingerprint']}, now {data.fingerprint}); put the same files and "
            "vocabulary back, or start a new --workdir."
        )


def check_length(run: RunConfig, newest: int, *, in_epochs: bool) -> None:
    """Raises ConfigError if the run is already past its length in steps."""
    if newest > run.train.num_steps:
        key = "train.num_epochs" if in_epochs else "train.num_steps"
        raise workdir.too_short(key, run.train.num_steps, newest)


def check_processes(processes: ProcessGroup) -> None:
    """Raises ConfigError if JAX sees devices of unknown processes."""
    if jax.process_count() != processes.count:
        raise ConfigError(
            f"JAX sees devices of {jax.process_count()} processes but this run is of "
            f'{processes.count}; set distributed.start to "auto" or "explicit".'
        )


def use_compilation_cache(directory: str) -> None:
    """Caches compiled programs on disk, so that a restart does not recompile them."""
    if directory:
        path = user_path(directory)
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        compilation_cache.reset_cache()  # with several processes, one program is already compiled
