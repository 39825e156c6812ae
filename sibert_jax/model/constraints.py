"""Sharding constraints on activations: a model names dimensions, its caller knows the mesh.

XLA chooses the layout of every array that has no constraint. Left alone with parameters sharded
over the devices of a batch, it shards the features of the residual stream and sums every matrix
product over the devices; if it knows that the batch is sharded, it gathers the parameters of one
layer.
"""

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import jax


class ShardingRules(Protocol):
    """The caller's mesh; arrays are described by a letter per dimension, as in config.py."""

    def constrain(self, x: jax.Array, letters: str) -> jax.Array:
        """Returns `x` with the sharding of its letters."""

    def shard_map(self, fn: Callable, in_letters: Sequence[str], out_letters: Sequence[str]):
        """Returns `fn` mapped over the shards of its arguments."""


_RULES: contextvars.ContextVar[ShardingRules | None] = contextvars.ContextVar(
    "sharding_rules", default=None
)


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Constrains the sharding of `x` by the rules in force; returns `x` where there are none.

    Args:
      x: an activation.
      letters: a letter per dimension, as in config.py: "BLD".

    Example:
      >>> x_BLD = constrain(x_BLD, "BLD")
    """
    rules = _RULES.get()
    return x if rules is None else rules.constrain(x, letters)


def shard_map(fn: Callable, in_letters: Sequence[str], out_letters: Sequence[str]) -> Callable:
    """Maps `fn` over shards, for what XLA cannot partition, as a kernel; without rules, `fn`.

    Args:
      fn: of arrays, returns a tuple of arrays; independent along every sharded dimension.
      in_letters: letters of each argument.
      out_letters: letters of each result.

    Example:
      >>> attend = shard_map(attend, ("BHLK", "BHMK", "BHMK"), ("BHLK", "BHL"))
      >>> out_BHLK, total_BHL = attend(q_BHLK, k_BHMK, v_BHMK)
    """
    rules = _RULES.get()
    return fn if rules is None else rules.shard_map(fn, in_letters, out_letters)


def with_sharding_rules(fn: Callable, rules: ShardingRules) -> Callable:
    """Returns `fn` with the rules in force while it runs or is traced."""

    @functools.wraps(fn)
    def wrapped(*args):
        token = _RULES.set(rules)
        try:
            return fn(*args)
        finally:
            _RULES.reset(token)

    return wrapped
