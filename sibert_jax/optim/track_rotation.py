"""Measure how any optimizer rotates the parameters, without changing its updates.

Notation: x parameters, g gradient, u update, η learning rate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    ROWS,
    AxisName,
    BlocksOrFn,
    after,
    aligned,
    assign_blocks,
    floating_leaves,
    norm,
)
from sibert_jax.optim.rotation import effective_learning_rate, radial_cosine, rotation
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at


class TrackRotationState(NamedTuple):
    """Rotation and norms of the last step. Zeros before the first step.

    Every field but `count` and `inner` is a float32 scalar, or with `blocks` a dict from the
    block's name to one.

    Attributes:
      count: int32, steps taken.
      rotation: the angle between x and x + u in radians.
      effective_learning_rate: η/‖x‖².
      radial_cosine: ⟨x, g⟩/(‖x‖‖g‖), 0 for a loss invariant to the scale of x.
      param_norm: ‖x‖.
      grad_norm: ‖g‖.
      inner: state of the inner transformation.
    """

    count: jax.Array
    rotation: jax.Array | dict[str, jax.Array]
    effective_learning_rate: jax.Array | dict[str, jax.Array]
    radial_cosine: jax.Array | dict[str, jax.Array]
    param_norm: jax.Array | dict[str, jax.Array]
    grad_norm: jax.Array | dict[str, jax.Array]
    inner: optax.OptState


MEASURED = ("rotation", "effective_learning_rate", "radial_cosine", "param_norm", "grad_norm")


def _measure(xs, gs, us, eta: jax.Array | None, axis_name: AxisName) -> dict[str, jax.Array]:
    grad_norm = norm(gs, axis_name)
    if eta is None:
        eta = norm(us, axis_name) / jnp.where(grad_norm > 0, grad_norm, 1.0)
    return {
        "rotation": rotation(xs, us, axis_name=axis_name),
        "effective_learning_rate": effective_learning_rate(eta, xs, axis_name=axis_name),
        "radial_cosine": radial_cosine(xs, gs, axis_name=axis_name),
        "param_norm": norm(xs, axis_name),
        "grad_norm": grad_norm,
    }


def track_rotation(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Record rotation angle, effective learning rate and radial gradient of any optax optimizer.

    .. math:: \angle(x, x+u), \qquad \eta/\|x\|^2, \qquad \langle x, g\rangle/(\|x\|\,\|g\|)

    The updates are those of `inner`, bit for bit. If x = 0 all three are 0; if g = 0 the last one
    is. A NaN or inf makes the quantities of its block that depend on it NaN. A leaf whose gradient
    or update is None is ignored.

    Args:
      inner: the whole optimizer, including the learning rate: the angle is that of its update.
      learning_rate: η, a number or a schedule. None: that of a plain SGD step of the same length,
        ‖u‖/‖g‖ (0 where g = 0).
      blocks: which leaves are measured together; None: all of them. Labels as in
        `clip_by_relative_global_norm`, except ROWS.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split.

    Returns:
      A transformation with state `TrackRotationState`. Extra arguments are passed to `inner`.

    Raises:
      ValueError: η negative, ROWS or other bad labels, or no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import track_rotation
      >>> tx = track_rotation(optax.sgd(0.1), 0.1)
      >>> params, grads = jnp.array([0.0, 2.0]), jnp.array([20.0, 0.0])
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> print(f"{state.rotation:.4f} {state.effective_learning_rate:.4f}")  # π/4, 0.1/4
      0.7854 0.0250

    References:
      Kosson, Messmer, Jaggi, *Rotational Equilibrium*, https://arxiv.org/abs/2305.17212.
    """
    if learning_rate is not None:
        check_scalar("learning_rate", learning_rate)
    inner = optax.with_extra_args_support(inner)

    def parts(tree):
        found = assign_blocks(blocks, tree)
        if any(block.rows for block in found):
            raise ValueError(f"track_rotation measures whole leaves: {ROWS} is no label for it.")
        return found

    def init_fn(params):
        floating_leaves(params)
        names = [block.name for block in parts(params)]

        def zero():
            zeros = {name: jnp.zeros([], jnp.float32) for name in names}
            return zeros if names else jnp.zeros([], jnp.float32)

        return TrackRotationState(
            count=jnp.zeros([], jnp.int32),
            **{field: zero() for field in MEASURED},
            inner=inner.init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        new_updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        eta = None if learning_rate is None else value_at(learning_rate, state.count)
        xs = jax.tree.leaves(params)
        gs, us = aligned(updates, params), aligned(new_updates, params)

        def measured_together(leaves):
            present = [i for i in leaves if gs[i] is not None and us[i] is not None]
            members = ([tree[i] for i in present] for tree in (xs, gs, us))
            return _measure(*members, eta, axis_name)

        found = parts(params)
        if found:
            by_block = {block.name: measured_together(block.leaves) for block in found}
            fields = {
                field: {name: values[field] for name, values in by_block.items()}
                for field in MEASURED
            }
        else:
            fields = measured_together(range(len(xs)))
        count = optax.safe_increment(state.count)
        measured = sum(jnp.abs(value) for value in jax.tree.leaves(fields))
        new_updates = after(measured, new_updates)
        return new_updates, TrackRotationState(count=count, **fields, inner=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
