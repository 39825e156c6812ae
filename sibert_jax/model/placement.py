"""Where activations lie on the devices: a model names dimensions, its caller knows the mesh.

XLA decides on the layout of whatever it is not told. Left alone with parameters that are split over
the devices of a batch, it splits the features of the residual stream and sums every matrix product
over the devices; told that the batch is what is split, it gathers the parameters of one layer.
"""

import contextvars
import functools
from collections.abc import Callable

import jax

Rule = Callable[[jax.Array, str], jax.Array]

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
    return x if rule is None else rule(x, letters)


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
