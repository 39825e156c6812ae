"""Normalize the gradient of every unit of a matrix, and clip its update relative to its weights.

Notation: G the gradient of a matrix, i one of its input or output units, n the size of a unit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import aligned, floating_leaves, like_updates, power_of_two, widened
from sibert_jax.optim.matrix_axes import AxesOrFn, MatrixAxes, Units, check_units, leaf_axes
from sibert_jax.optim.relative_clip import clip_scale
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at

Axes = tuple[int, ...] | None


def _scaled(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x/size, size, and the root mean square of x/size; size is a power of two near max |x|.

    The maximum and the mean are over `axes` (None: all), which keep length 1.
    """
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0.0)
    size = power_of_two(largest.astype(jnp.float32)).astype(x.dtype)
    scaled = x * (1 / size)
    return scaled, size, jnp.sqrt(jnp.mean(jnp.square(scaled), axis=axes, keepdims=True))


def over_rms(x: jax.Array, axes: Axes = None, power: float = 1.0) -> jax.Array:
    """Return x divided by the given power of its root mean square; zeros stay 0.

    Args:
      x: float32 or wider, any shape, entries of any magnitude.
      axes: the axes over which the mean is taken; None: all.
      power: 1: the result has root mean square 1; 0: the result is x.

    Returns:
      An array like x; NaN wherever the mean includes a NaN or inf.
    """
    scaled, size, rms = _scaled(x, axes)
    factor = jnp.where(rms == 0, 1.0, rms) ** -power * size ** (1 - power)
    return scaled * jnp.where(jnp.isfinite(rms), factor, jnp.nan)


def stateless_direction(
    of_matrix: Callable[[jax.Array, MatrixAxes], jax.Array],
    axes: AxesOrFn,
    of_other: Callable[[jax.Array], jax.Array] = over_rms,
) -> optax.GradientTransformationExtraArgs:
    """Return a stateless transform that maps each leaf separately, in at least float32."""

    def init_fn(params):
        floating_leaves(params)
        leaf_axes(axes, params)
        return optax.EmptyState()

    def leaf_update(g, found):
        if g is None or g.size == 0:
            return g
        wide = widened(g)
        return (of_other(wide) if found is None else of_matrix(wide, found)).astype(g.dtype)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        floating_leaves(updates)
        tree = updates if params is None else params
        found = leaf_axes(axes, tree)
        outs = [leaf_update(g, axes) for g, axes in zip(aligned(updates, tree), found)]
        return like_updates(outs, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def scale_by_unit_rms(
    units: Units = "output", power: float = 1.0, *, axes: AxesOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the gradient of every output unit (or input unit) by its own root mean square.

    .. math:: u_i = g_i / r_i^p, \qquad r_i^2 = \|g_i\|^2 / n

    No state (0 bytes). With p = 1 and `units="output"` it is the column normalization of SCALE's
    published code; the paper's text divides by ‖g_i‖, which is √n times as much. For a token
    embedding table (I tokens, O features) `units="input"` normalizes each token separately.

    Edge cases: a unit with gradient 0 stays 0. A NaN or inf makes only its own unit NaN. With p = 1
    the direction does not depend on the magnitude of a finite gradient. A leaf that is not a matrix
    counts as one unit.

    Under `jit` leaves may be sharded in any way; inside `shard_map` they must be whole.

    Args:
      units: the vectors to normalize: "output": the I weights into each output; "input": the O
        weights out of each input.
      power: p in [0, 1]: 1 gives all units the same norm, 0 leaves them unchanged.
      axes: which axes are inputs and outputs; None: the last two of every leaf with two or more.
        Otherwise an `optax.contrib.MuonDimensionNumbers`, a tree of them with None for leaves that
        are not matrices, or a function from the parameters to such a tree. Further axes stack
        matrices.

    Returns:
      A transformation without state; its updates point uphill, like those of any `scale_by_*`.

    Raises:
      ValueError: unknown units, p outside [0, 1], a leaf that is not floating point, or axes that
        do not fit a leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import scale_by_unit_rms
      >>> tx = scale_by_unit_rms()
      >>> grads = jnp.array([[3.0, 0.0], [-3.0, 0.5]])  # two inputs, two outputs
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates.round(3))
      [[ 1.     0.   ]
       [-1.     1.414]]

    References:
      Glentis, Li, Han, Hong, *A Minimalist Optimizer Design for LLM Pretraining* (SCALE),
      https://arxiv.org/abs/2506.16659, Algorithm 1. The power and the handling of zeros and NaN are
      ours.
    """
    check_units(units)
    check_scalar("power", power)
    if power > 1:
        raise ValueError(f"power must be >= 0 and <= 1, found {power:g}.")
    return stateless_direction(
        lambda g, found: over_rms(g, found.of_each(units), power),
        axes,
        of_other=lambda g: over_rms(g, power=power),
    )


class UnitClipState(NamedTuple):
    """State of `clip_by_relative_unit_norm`.

    Attributes:
      count: int32, steps taken.
    """

    count: jax.Array


def clip_by_relative_unit_norm(
    max_ratio: optax.ScalarOrSchedule, units: Units = "input", *, axes: AxesOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scale the update of every unit down until ‖u_i‖ ≤ c·‖x_i‖.

    .. math:: u_i \leftarrow \min(1,\; c\,\|x_i\|/\|u_i\|)\; u_i

    At the end of a chain it bounds the rotation of a unit in one step by arcsin c. Put it after the
    learning rate, or after `hyperball`, whose blocks may then leave the sphere until the next step.
    For a token embedding table (I tokens, O features) the default clips each token's row. State: 4
    bytes.

    Edge cases, as for `clip_by_relative_global_norm`: u_i = 0 stays 0. ‖x_i‖ = 0 or c = inf: no
    clip. A unit with a NaN passes unclipped. ‖u_i‖ = inf: finite entries become 0, infinite ones
    NaN. A leaf that is not a matrix is clipped as one unit.

    Under `jit` leaves may be sharded in any way; inside `shard_map` they must be whole.

    Args:
      max_ratio: c ≥ 0, a number or a schedule.
      units: "input": one norm for the O weights out of each input; "output": for the I weights into
        each output.
      axes: as in `scale_by_unit_rms`.

    Returns:
      A transformation with state `UnitClipState`.

    Raises:
      ValueError: c negative or NaN, unknown units, a leaf that is not floating point, axes that do
        not fit a leaf, or (from `update`) no `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import clip_by_relative_unit_norm
      >>> tx = clip_by_relative_unit_norm(0.2)
      >>> table, updates = jnp.array([[3.0, 4.0], [0.6, 0.8]]), jnp.full((2, 2), 0.5)
      >>> clipped, _ = tx.update(updates, tx.init(table), table)
      >>> print(clipped.round(3))
      [[0.5   0.5  ]
       [0.141 0.141]]

    References:
      Brock, De, Smith, Simonyan, https://arxiv.org/abs/2102.06171, equation 3: unit-wise clipping,
      with a lower bound on ‖x_i‖.
    """
    check_scalar("max_ratio", max_ratio)
    check_units(units)

    def init_fn(params):
        floating_leaves(params)
        leaf_axes(axes, params)
        return UnitClipState(jnp.zeros([], jnp.int32))

    def clipped(u, x, found, ratio):
        if u is None or u.size == 0:
            return u
        summed = None if found is None else found.of_each(units)

        def rms(leaf):  # instead of the norm: both have n entries
            _, size, of_scaled = _scaled(widened(leaf), summed)
            return size * of_scaled

        wide = widened(u)
        of_u, of_x = rms(u), rms(x).astype(wide.dtype)
        _, scale = clip_scale(of_u, of_x, ratio.astype(wide.dtype))
        return (wide * scale).astype(u.dtype)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        floating_leaves(updates)
        ratio = value_at(max_ratio, state.count)
        leaves = zip(aligned(updates, params), jax.tree.leaves(params), leaf_axes(axes, params))
        outs = [clipped(u, x, found, ratio) for u, x, found in leaves]
        return like_updates(outs, updates), UnitClipState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
