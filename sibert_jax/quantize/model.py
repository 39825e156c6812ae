"""Quantizes a model block by block, as a pure function of parameters and calibration batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.interop.per_layer import flatten
from sibert_jax.interop.quantized import Form, Quantized, dequantized
from sibert_jax.quantize import rounding
from sibert_jax.quantize.blocks import Blocks
from sibert_jax.quantize.matrices import block_of, forms, is_table
from sibert_jax.quantize.settings import Settings
from sibert_jax.quantize.tune import Examples, tune


class Done(NamedTuple):
    """A quantized block.

    Attributes:
      block: its name, from `matrices.block_of`.
      tensors: its matrices, by name in the model.
      nearest: relative squared error of its output when rounded to nearest.
      error: the same for `tensors`.
      seconds: time it took.
    """

    block: str
    tensors: dict[str, Quantized]
    nearest: float
    error: float
    seconds: float


def quantize(
    module: nn.Module,
    params: Mapping,
    batches: Sequence[Mapping[str, np.ndarray]],
    settings: Settings,
    *,
    done: Mapping[str, Done] | None = None,
    keep: Callable[[Done], None] = lambda done: None,
) -> dict[str, Quantized | np.ndarray]:
    """Quantizes every matrix of a model; tables first, then blocks in forward order.

    A block is tuned to reproduce its output in the float model, given inputs from the previously
    quantized blocks.

    Args:
      module: encoder and head, as in `LoadedModel.module`.
      params: {"encoder": ...} and, if present, "head", float32.
      batches: calibration batches, at least one, all of the same shapes.
      settings: bits, groups, method.
      done: finished blocks of an earlier call with the same arguments.
      keep: called with each quantized block.

    Returns:
      All leaves, named as in interop/per_layer: `Quantized`, or float32 if not quantized.

    Raises:
      ConfigError: a group does not divide the inputs of a leaf.

    Example::

        model = sibert_jax.load("runs/mini")
        tensors = quantize(model.module, model.params, batches, Settings(bits=3))
    """
    done = done or {}
    original = flatten(params, scan_layers=module.cfg.scan_layers)
    every = forms(original, settings)
    by_block: dict[str, dict[str, Form]] = {}
    for name, form in every.items():
        if not is_table(name):
            by_block.setdefault(block_of(name), {})[name] = form
    found: dict[str, Quantized | np.ndarray] = dict(original)
    found |= {k: rounding.quantized(original[k], form) for k, form in every.items() if is_table(k)}
    blocks = Blocks(module, list(by_block))
    device = jax.tree.map(jnp.asarray, original)
    jax.eval_shape(blocks.traffic, device, batches[0])
    for block in blocks.calls:
        if block in done:
            found |= done[block].tensors
            continue
        started = time.monotonic()
        examples = _examples(blocks, block, device, dequantized(found), batches)
        inside = {k.removeprefix(f"{block}/"): x for k, x in original.items() if _is_in(k, block)}
        due = {name.removeprefix(f"{block}/"): form for name, form in by_block[block].items()}
        tuned = tune(blocks.calls[block], inside, due, examples, settings)
        tensors = {f"{block}/{name}": tensor for name, tensor in tuned.tensors.items()}
        found |= tensors
        keep(Done(block, tensors, tuned.nearest, tuned.error, time.monotonic() - started))
    for name, form in every.items():  # matrices that the forward pass does not use
        if not isinstance(found[name], Quantized):
            found[name] = rounding.quantized(original[name], form)
    return found


def _is_in(name: str, block: str) -> bool:
    return name.startswith(f"{block}/")


def _examples(
    blocks: Blocks, block: str, original: Mapping, current: Mapping, batches: Sequence[Mapping]
) -> Examples:
    """Returns the inputs of a block in the quantized model, and its outputs in the float one."""
    current = jax.tree.map(jnp.asarray, dict(current))
    inputs = [blocks.traffic(current, batch)[block].inputs for batch in batches]
    targets = [blocks.traffic(original, batch)[block].outputs for batch in batches]
    masks = np.stack([batch["attention_mask"] for batch in batches])
    return Examples(_stacked(inputs), _stacked(targets), masks)


def _stacked(of_batches: Sequence[list[jax.Array]]) -> list[jax.Array]:
    return [np.stack(arrays) for arrays in zip(*of_batches)]
