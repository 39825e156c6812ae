"""Where activations lie on the devices: a model names dimensions, its caller knows the mesh.

XLA decides on the layout of whatever it is not told. Left alone with parameters that are split over
the devices of a batch, it splits the features of the residual stream and sums every matrix product
over the devices; told that the batch is what is split, it gathers the parameters of one layer.
"""

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import jax


class Rule(Protocol):
    """What the caller knows of the mesh; letters: a letter a dimension, as in config.py."""

    def place(self, x: jax.Array, letters: str) -> jax.Array:
        """`x`, laid on the devices by its letters."""

    def split(self, fn: Callable, arguments: Sequence[str], results: Sequence[str]) -> Callable:
        """`fn`, which then sees of every array the part that a device holds."""


_RULE: contextvars.ContextVar[Rule | None] = contextvars.ContextVar("placement", default=None)


def place(x: jax.Array, letters: str) -> jax.Array:
    """Hands `x` to the rule in force; unchanged without one.

    Args:
      x: an activation.
      letters: a letter a dimension, as in config.py: "BLD".

    Example:
      >>> x_BLD = place(x_BLD, "BLD")
    """
    rule = _RULE.get()
    return x if rule is None else rule.place(x, letters)


def split(fn: Callable, arguments: Sequence[str], results: Sequence[str]) -> Callable:
    """`fn` on each device by itself, for what XLA cannot split, as a kernel; without a rule, `fn`.

    Args:
      fn: of arrays, returns a tuple of arrays; independent along every dimension that is split.
      arguments: letters of each argument.
      results: letters of each result.

    Example:
      >>> out_BHLK, total_BHL = split(attend, ("BHLK", "BHMK", "BHMK"), ("BHLK", "BHL"))(q, k, v)
    """
    rule = _RULE.get()
    return fn if rule is None else rule.split(fn, arguments, results)


def with_placement(fn: Callable, rule: Rule) -> Callable:
    """`fn` with a rule in force while it runs, or while it is traced."""

    @functools.wraps(fn)
    def placed(*args):
        token = _RULE.set(rule)
        try:
            return fn(*args)
        finally:
            _RULE.reset(token)

    return placed
