"""SignRound on one block: tunes the knobs of its matrices to reduce its output error.

Cheng et al., arXiv 2309.05516, algorithm 1: signed gradient descent at a learning rate falling from
1/T to 0, one batch per step, keeping the best knobs. "Best" is by the error over all batches,
measured 14 times, so that the result is never worse than rounding to nearest. At 4 bits and more
the best is among the first steps, so five of the measurements are in the first tenth.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.interop.quantized import Form, Quantized, dequantized
from sibert_jax.optim import sign_descent
from sibert_jax.quantize import rounding
from sibert_jax.quantize.blocks import Call
from sibert_jax.quantize.rounding import Knobs
from sibert_jax.quantize.settings import Settings

PIECES, EARLY = 50, 5  # of all steps; measured after each early one, then after every fifth


class Examples(NamedTuple):
    """The inputs and target outputs of a block. Notation: S batches.

    Attributes:
      inputs: (S, ...) each.
      targets: (S, ...) each, outputs of the block in the float model.
      mask_SBL: bool, False on padding.
    """

    inputs: list[jax.Array]
    targets: list[jax.Array]
    mask_SBL: jax.Array


class Tuned(NamedTuple):
    """A quantized block.

    Attributes:
      tensors: quantized matrices by leaf name inside the block.
      nearest: relative squared error of the output when rounded to nearest.
      error: the same for `tensors`, at most `nearest`.
    """

    tensors: dict[str, Quantized]
    nearest: float
    error: float


def tune(
    call: Call,
    params: Mapping[str, np.ndarray],
    forms: Mapping[str, Form],
    examples: Examples,
    settings: Settings,
) -> Tuned:
    """Quantizes the matrices of a block.

    Args:
      call: the block.
      params: all its leaves, float32.
      forms: the forms of the leaves to quantize.
      examples: all batches.
      settings: method and steps.
    """

    def measured(tensors: Mapping[str, Quantized]) -> float:
        return float(_error(call, {**params, **dequantized(tensors)}, examples))

    def integers(knobs: Mapping[str, Knobs]) -> dict[str, Quantized]:
        return {k: rounding.quantized(params[k], form, knobs[k]) for k, form in forms.items()}

    knobs = {name: Knobs.nearest(form) for name, form in forms.items()}
    tensors = integers(knobs)
    nearest = error = measured(tensors)
    if settings.method == "rtn":
        return Tuned(tensors, nearest, nearest)
    form_items = tuple(sorted(forms.items()))
    grouped = {name: jnp.asarray(form.grouped(params[name])) for name, form in forms.items()}
    others = {name: leaf for name, leaf in params.items() if name not in forms}
    state = _descent(settings.steps, form_items).init(knobs)
    orders = _orders(settings, len(examples.mask_SBL))
    for piece, order in enumerate(orders, 1):
        knobs, state = _advance(
            call, form_items, settings.steps, grouped, others, (knobs, state), examples, order
        )
        if piece > EARLY and piece % EARLY and piece < len(orders):
            continue
        tried = integers(knobs)
        if (found := measured(tried)) < error:
            tensors, error = tried, found
    return Tuned(tensors, nearest, error)


def _orders(settings: Settings, num_batches: int) -> np.ndarray:
    """Returns the batch of each step, (pieces, steps per piece), in random order per epoch.

    Steps beyond the last one have a learning rate of 0.
    """
    of_one = -(-settings.steps // PIECES)
    pieces = -(-settings.steps // of_one)
    rng, count = np.random.default_rng(settings.seed), pieces * of_one
    epochs = [rng.permutation(num_batches) for _ in range(-(-count // num_batches))]
    return np.concatenate(epochs)[:count].astype(np.int32).reshape(pieces, of_one)


@functools.lru_cache(maxsize=8)
def _descent(steps: int, forms: tuple[tuple[str, Form], ...]):
    names = [name for name, _ in forms]
    return sign_descent(
        steps,
        lower=dict.fromkeys(names, rounding.LOWER),
        upper=dict.fromkeys(names, rounding.UPPER),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(
    call: Call,
    forms: tuple[tuple[str, Form], ...],
    num_steps: int,
    grouped: Mapping[str, jax.Array],
    others: Mapping[str, jax.Array],
    start: tuple,
    examples: Examples,
    order_T: jax.Array,
) -> tuple:
    """Takes some steps of the descent; returns knobs and state after them."""
    tx = _descent(num_steps, forms)

    def loss(knobs, batch):
        rounded = {
            name: form.ungrouped(rounding.rounded(grouped[name], knobs[name], form).values())
            for name, form in forms
        }
        return _square(call, {**others, **rounded}, batch)[0]

    def step(carry, index):
        knobs, state = carry
        batch = jax.tree.map(lambda x: x[index], examples)
        updates, state = tx.update(jax.grad(loss)(knobs, batch), state, knobs)
        return (jax.tree.map(jnp.add, knobs, updates), state), None

    return jax.lax.scan(step, start, order_T)[0]


@functools.partial(jax.jit, static_argnums=0)
def _error(call: Call, params: Mapping[str, jax.Array], examples: Examples) -> jax.Array:
    """Returns the squared error of the outputs, relative to their square."""
    error_S, square_S = jax.lax.map(lambda batch: _square(call, params, batch), examples)
    return error_S.sum() / jnp.maximum(square_S.sum(), jnp.finfo(jnp.float32).tiny)


def _square(call: Call, params: Mapping[str, jax.Array], batch: Examples):
    """Returns squared error and square of the outputs on one batch, without padding."""
    error, square = jnp.zeros(()), jnp.zeros(())
    for output, target in zip(call(params, batch.inputs), batch.targets, strict=True):
        error_x = jnp.square(output.astype(jnp.float32) - target.astype(jnp.float32))
        square_x = jnp.square(target.astype(jnp.float32))
        mask_BL = batch.mask_SBL
        if output.shape[:2] == mask_BL.shape:
            real = mask_BL.reshape(*mask_BL.shape, *[1] * (output.ndim - 2))
            error_x, square_x = jnp.where(real, error_x, 0.0), jnp.where(real, square_x, 0.0)
        error, square = error + error_x.sum(), square + square_x.sum()
    return error, square
