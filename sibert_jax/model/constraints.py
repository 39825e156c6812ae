"""Sharding constraints on activations: the model names dimensions, its caller knows the mesh.

XLA chooses the sharding of every unconstrained array. If the parameters are sharded over the
batch's devices, it would shard the features of the residual stream and all-reduce every matrix
product; told that the batch is sharded, it gathers the parameters one layer at a time.
"""

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import jax


class ShardingRules(Protocol):
    """The caller's mesh; dimensions of arrays are named by the letters of config.py."""

    def constrain(self, x: jax.Array, letters: str) -> jax.Array:
        """Returns `x` with the sharding of its letters."""

    def shard_map(self, fn: Callable, in_letters: Sequence[str], out_letters: Sequence[str]):
        """Returns `fn` mapped over the shards of its arguments."""


_RULES: contextvars.ContextVar[ShardingRules | None] = contextvars.ContextVar(
    "sharding_rules", default=None
)


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Constrains the sharding of `x` by the active rules; returns `x` if there are none.

    Args:
      x: an activation.
      letters: one letter of config.py per dimension, such as "BLD".

    Example:
      >>> x_BLD = constrain(x_BLD, "BLD")
    """
    rules = _RULES.get()
    return x if rules is None else rules.constrain(x, letters)


def shard_map(fn: Callable, in_letters: Sequence[str], out_letters: Sequence[str]) -> Callable:
    """Maps `fn`, which XLA cannot partition (a kernel), over shards; without rules returns `fn`.

    Args:
      fn: takes arrays, returns a tuple of arrays; independent along every sharded dimension.
      in_letters: the dimensions of each argument.
      out_letters: the dimensions of each result.

    Example:
      >>> attend = shard_map(attend, ("BHLK", "BHMK", "BHMK"), ("BHLK", "BHL"))
      >>> out_BHLK, total_BHL = attend(q_BHLK, k_BHMK, v_BHMK)
    """
    rules = _RULES.get()
    return fn if rules is None else rules.shard_map(fn, in_letters, out_letters)


def with_sharding_rules(fn: Callable, rules: ShardingRules) -> Callable:
    """Returns `fn` with the rules active while it runs or is traced."""

    @functools.wraps(fn)
    def wrapped(*args):
        token = _RULES.set(rules)
        try:
            return fn(*args)
        finally:
            _RULES.reset(token)

    return wrapped
