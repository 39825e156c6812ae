"""Applies a finished run's model to new text."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import ml_collections

from sibert_jax.checkpoint import restore_params
from sibert_jax.config_file import override
from sibert_jax.data import Tokenizer, vocabulary_file
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path
from sibert_jax.train import sharding
from sibert_jax.train.config import keys_where, run_config
from sibert_jax.train.evaluate import Evaluator
from sibert_jax.train.resolve import read_settings
from sibert_jax.train.trainer import Shapes


def predict(
    directory: str | pathlib.Path,
    path: str,
    say: Callable[[str], None],
    devices: Sequence[jax.Device] | None = None,
    step: int | str | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Predicts on, or continues, a file of new text with a checkpoint of a run.

    Args:
      directory: the run's workdir; its `config.json` and vocabulary are used, nothing is written.
      path: the text file, in a format that the run's task reads.
      say: called with messages on the checkpoint and on unreadable text.
      devices: the devices of the mesh; None: all.
      step: the checkpoint, as for `checkpoint.chosen`; None: the newest.
      overrides: words such as "--config.task.temperature=0.8", for task keys that may change.

    Returns:
      Lines of text, in the order of the file.

    Raises:
      ConfigError, DataError, CheckpointError: one sentence each.
    """
    directory, path = user_path(directory), str(user_path(path))
    try:
        settings = read_settings(directory / "config.json")
        run = run_config(settings)
    except ConfigError as error:
        raise ConfigError(
            f"--workdir={directory}: {error} Name the workdir of a fine-tuned run."
        ) from None
    if overrides:
        run = run_config(_overridden(settings, overrides))
    if run.model.attention_impl == "pallas":  # a run with kernels may predict elsewhere
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, attention_impl="auto"))
    if run.task_type.load_new_text is None:
        raise ConfigError(
            f"--predict is for runs that answer or continue a text, and this one has task.name="
            f"{run.task.name!r}."
        )
    task, new = run.task_type.load_new_text(
        run.model,
        run.task,
        run.data,
        path,
        Tokenizer.load(vocabulary_file(directory)),
        global_batch_size=run.train.global_batch_size,
        progress=say,
        workdir=directory,
    )
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    shapes = Shapes.of(run, mesh, task)
    params, step = restore_params(directory / "checkpoints", shapes.params, step)
    say(f"the model of {directory} at step {step:,}")
    return new.lines(Evaluator(shapes).results(params, new.batches, len(new.batches)))


def _overridden(settings: dict, words: Sequence[str]) -> dict:
    free = {name for name in keys_where("may_change", settings) if name.startswith("task.")}
    for word in words:
        name = word.partition("config.")[2].partition("=")[0]
        if name not in free:
            remedy = f"set one of {', '.join(sorted(free))}" if free else "this task has none"
            raise ConfigError(
                f"{word}: with --predict, only keys that affect the answers can be set; {remedy}."
            )
    task = override(ml_collections.ConfigDict(settings), words).task
    return settings | {"task": task.to_dict()}
