"""Quantizes a model directory."""

import dataclasses
import pathlib
from collections.abc import Callable

from sibert_jax.errors import ConfigError
from sibert_jax.inference.load import load
from sibert_jax.interop import exported
from sibert_jax.interop.per_layer import flatten
from sibert_jax.quantize import calibration, directory
from sibert_jax.quantize.model import Done, quantize
from sibert_jax.quantize.settings import Settings


def quantize_directory(
    source: pathlib.Path,
    target: pathlib.Path,
    settings: Settings,
    *,
    num_batches: int = 16,
    batch_size: int = 8,
    data: pathlib.Path | None = None,
    step: int | str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Quantizes a trained model; a repeated call continues after the last finished block.

    Args:
      source: a directory as for `sibert_jax.load`, not quantized.
      target: new or empty, or left behind by an interrupted call with the same arguments.
      settings: bits, groups, method.
      num_batches: number of calibration batches.
      batch_size: examples per batch.
      data: a text file; None: the training data of the run.
      step: the checkpoint of a workdir, as for `load`.
      say: called with progress messages.

    Raises:
      ConfigError, DataError, CheckpointError, InteropError: one sentence each.
    """
    for name, number in (("batches", num_batches), ("batch_size", batch_size)):
        if number < 1:
            raise ConfigError(f"--{name}={number} must be at least 1.")
    if exported.is_quantized(source):
        raise ConfigError(f"{source} is already quantized; name the model that it was made from.")
    model = load(source, step)
    if model.config.arch == "reparametrized":
        raise ConfigError(
            f'{source} has model.arch="reparametrized", whose weights are scaled before each use; '
            "rounding does not survive that."
        )
    if data is None:
        batches = calibration.of_run(model, num_batches, batch_size, say)
    else:
        batches = calibration.of_file(model, data, num_batches, batch_size, settings.seed)
    params = flatten(model.params, scan_layers=model.config.scan_layers)
    identity = dataclasses.asdict(settings)
    identity |= {"weights": directory.digest(params, []), "text": directory.digest({}, batches)}
    unfinished = directory.Unfinished(target, identity)
    earlier = unfinished.done()
    if earlier:
        say(f"{target}: {len(earlier)} blocks are already done")
    blocks = list(earlier.values())

    def keep(done: Done) -> None:
        unfinished.keep(done)
        blocks.append(done)
        say(describe(done))

    tensors = quantize(model.module, model.params, batches, settings, done=earlier, keep=keep)
    nbytes = directory.write(target, model, tensors, settings, blocks)
    unfinished.remove()
    say(f"{target}: {nbytes / 1e6:.2f} MB of weights, {settings.bits} bits, {settings.method}")


def describe(done: Done) -> str:
    """Returns a line on a block."""
    return (
        f"{done.block}: error {done.nearest:.3g} rounded to nearest, {done.error:.3g} as written, "
        f"{done.seconds:.1f} s"
    )
