"""A finished run's model on new text."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import ml_collections

from sibert_jax.checkpoint import restore_params
from sibert_jax.data import Tokenizer
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path
from sibert_jax.train import build, sharding
from sibert_jax.train.evaluate import Evaluator
from sibert_jax.train.workdir import ADDED


def predict(
    directory: str | pathlib.Path,
    path: str,
    say: Callable[[str], None],
    devices: Sequence[jax.Device] | None = None,
) -> list[str]:
    """What the newest checkpoint of a fine-tuned run says of a file of new text.

    Args:
      directory: the run's workdir; its `config.json` and `vocab.txt` are used, nothing is written.
      path: the text, in a form that the run's task reads.
      say: called with a line about the checkpoint, and on what of the text cannot be read.
      devices: what the mesh is made of; None: all of them.

    Returns:
      A header and a line an example, in the order of the file.

    Raises:
      ConfigError, DataError, CheckpointError: one sentence each.
    """
    directory, path = user_path(directory), str(user_path(path))
    try:
        settings = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--workdir={directory} has no config.json that can be read ({error}); name the "
            "workdir of a fine-tuned run."
        ) from None
    for key, value in ADDED.items():
        section, name = key.split(".")
        if section in settings and section != "task":  # those are of pretraining
            settings[section].setdefault(name, value)
    if "checkpoint" in settings:
        settings["checkpoint"]["init_from"] = ""  # the settings are complete without it
    run = build.run_config(ml_collections.ConfigDict(settings))
    if (
        run.model.attention_impl == "pallas"
    ):  # whoever was trained with kernels may predict elsewhere
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, attention_impl="auto"))
    task, new = build.load_new_text(run, path, Tokenizer.load(directory / "vocab.txt"), say)
    mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, devices)
    row = task.abstract_batch(1, task.seq_lens[-1])
    abstract = jax.eval_shape(task.init, jax.random.key(0), row)
    shardings = sharding.param_shardings(abstract, mesh)
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )
    params, step = restore_params(directory / "checkpoints", abstract)
    say(f"the model of {directory} at step {step:,}")
    evaluator = Evaluator(task, mesh, run.train.global_batch_size, abstract)
    return new.lines(evaluator.results(params, new.batches, len(new.batches)))
