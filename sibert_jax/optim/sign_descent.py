"""Signed gradient descent inside bounds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import aligned, floating_leaves, like_updates, prefix_values
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_integer, check_scalar


class SignDescentState(NamedTuple):
    """State of `sign_descent`.

    Attributes:
      count: int32, steps taken.
    """

    count: jax.Array


def sign_descent(
    num_steps: int,
    learning_rate: float | None = None,
    *,
    lower: Any = None,
    upper: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Signed gradient descent inside bounds: every entry moves by η_t per step for T steps.

    .. math:: x \leftarrow \mathrm{clip}\big(x - \eta_t\,\mathrm{sign}(g),\ l,\ u\big), \qquad
      \eta_t = \eta\,\max(0,\ 1 - t/T)

    Only signs count, so the scale of the loss does not matter, and no entry moves farther than
    η(T + 1)/2 from its start: about 1/2 for the default η = 1/T. Meant for parameters with a known
    range, such as rounding offsets of weights. State: 4 bytes.

    Edge cases: an entry with g = 0, or whose leaf has g = None, does not move; nothing moves after
    T steps; a NaN in g makes that entry NaN.

    Args:
      num_steps: T ≥ 1.
      learning_rate: η ≥ 0 at the first step; None: 1/T.
      lower, upper: None, a number, or a tree of numbers with the parameters' structure or a prefix
        of it. The first step moves an entry that starts outside to the bound.

    Returns:
      A transformation with state `SignDescentState`; its updates are added to the parameters.

    Raises:
      ValueError: T or η out of range, a leaf that is not floating point, bounds that do not fit the
        tree, or (from `update`) no `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import sign_descent
      >>> tx = sign_descent(4, lower=-0.5, upper=0.3)
      >>> x = jnp.zeros(3)
      >>> state = tx.init(x)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jnp.array([1e-9, -1e9, 0.0]), state, x)
      ...     x = x + updates
      >>> print(x)
      [-0.5  0.3  0. ]

    References:
      Cheng et al., *Optimize Weight Rounding via Signed Gradient Descent for the Quantization of
      LLMs*, https://arxiv.org/abs/2309.05516, section 3.
    """
    total = check_integer("num_steps", num_steps, minimum=1)
    eta = 1 / total if learning_rate is None else learning_rate
    check_scalar("learning_rate", eta)

    def init_fn(params):
        floating_leaves(params)
        return SignDescentState(jnp.zeros([], jnp.int32))

    def bounds_of(bound, params, name):
        if bound is None:
            return [None] * len(jax.tree.leaves(params))
        return prefix_values(bound, params, name)

    def moved(g, x, rate, low, high):
        if g is None:
            return None
        new = x - rate.astype(x.dtype) * jnp.sign(g).astype(x.dtype)
        if low is not None:
            new = jnp.maximum(new, jnp.asarray(low, x.dtype))
        if high is not None:
            new = jnp.minimum(new, jnp.asarray(high, x.dtype))
        return new - x

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        floating_leaves(updates)
        left = 1 - state.count.astype(jnp.float32) / total
        rate = eta * jnp.maximum(left, 0.0)
        leaves = zip(
            aligned(updates, params),
            jax.tree.leaves(params),
            bounds_of(lower, params, "lower bound"),
            bounds_of(upper, params, "upper bound"),
        )
        outs = [moved(g, x, rate, low, high) for g, x, low, high in leaves]
        state = SignDescentState(optax.safe_increment(state.count))
        return like_updates(outs, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
