"""Clip updates to a multiple of the parameter norm.

Notation: u the updates, x the parameters, r the bound on ‖u‖/‖x‖.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    Block,
    BlocksOrFn,
    after,
    aligned,
    along_rows,
    assign_blocks,
    floating_leaves,
    like_updates,
    norm,
    widened,
)
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at


class RelativeClipState(NamedTuple):
    """Norms and clipping of the last step. Zeros before the first step.

    Every field but `count` and `max_ratio` is a scalar, or with `blocks` a dict from the block's
    name to a scalar. A leaf under ROWS is named by its path, leaves under `Rows(name)` by that
    name; norms are taken over all rows.

    Attributes:
      count: int32, steps taken.
      max_ratio: float32, the bound r in force at the last step.
      grad_norm: float32, ‖u‖ before the clip.
      param_norm: float32, ‖x‖.
      ratio: float32, ‖u‖/‖x‖ before the clip; 0 where ‖x‖ = 0.
      clipped: bool, whether the last step was clipped (under ROWS: in any row).
      clipped_fraction: float32, 0 or 1 (under ROWS: the fraction of rows clipped).
      clipped_steps: int32, steps with `clipped` so far.
    """

    count: jax.Array
    max_ratio: jax.Array
    grad_norm: jax.Array | dict[str, jax.Array]
    param_norm: jax.Array | dict[str, jax.Array]
    ratio: jax.Array | dict[str, jax.Array]
    clipped: jax.Array | dict[str, jax.Array]
    clipped_fraction: jax.Array | dict[str, jax.Array]
    clipped_steps: jax.Array | dict[str, jax.Array]


class _Measured(NamedTuple):
    grad_norm: jax.Array
    param_norm: jax.Array
    ratio: jax.Array
    clipped: jax.Array
    clipped_fraction: jax.Array


def clip_scale(
    grad_norm: jax.Array, param_norm: jax.Array, max_ratio: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (clipped, min(1, r·‖x‖/‖u‖)); (False, 1) where ‖x‖ = 0, r = inf or a norm is NaN.

    Uses only products, quotients and comparisons, so rescaling by powers of two changes no bit.
    """
    bound = jnp.where(param_norm > 0, max_ratio * param_norm, jnp.inf)
    clipped = grad_norm > bound
    return clipped, jnp.where(clipped, bound / jnp.where(clipped, grad_norm, 1.0), 1.0)


def _scaled(u: jax.Array, scale: jax.Array) -> jax.Array:
    wide = widened(u)
    return (wide * scale.astype(wide.dtype)).astype(u.dtype)


def _measure(grad_norm, param_norm, clipped) -> _Measured:
    safe_norm = jnp.where(param_norm == 0, 1.0, param_norm)
    ratio = jnp.where(param_norm == 0, 0.0, grad_norm / safe_norm)
    fraction = jnp.sum(clipped.astype(jnp.float32)) / max(clipped.size, 1)
    return _Measured(grad_norm, param_norm, ratio, jnp.any(clipped), fraction)


def _clip_block(us, xs, block: Block, max_ratio, axis_name) -> tuple[list[jax.Array], _Measured]:
    grad_norm, param_norm = block.norm(us, axis_name), block.norm(xs, axis_name)
    clipped, scale = clip_scale(grad_norm, param_norm, max_ratio)
    outs = [_scaled(u, along_rows(scale, u)) for u in us]
    if block.rows:
        grad_norm, param_norm = norm([grad_norm]), norm([param_norm])
    return outs, _measure(grad_norm, param_norm, clipped)


def _clip_blocks(us, xs, blocks: tuple[Block, ...], max_ratio, axis_name):
    clipped_us, measured = list(us), {}
    for block in blocks:
        members = [i for i in block.leaves if us[i] is not None]
        if not members:
            block = block._replace(rows=False)  # no rows to measure
        outs, measured[block.name] = _clip_block(
            [us[i] for i in members], [xs[i] for i in members], block, max_ratio, axis_name
        )
        for i, out in zip(members, outs):
            clipped_us[i] = out
    fields = [
        {name: getattr(m, field) for name, m in measured.items()} for field in _Measured._fields
    ]
    return clipped_us, _Measured(*fields)


def clip_by_relative_global_norm(
    max_ratio: optax.ScalarOrSchedule,
    *,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale the updates down until ‖u‖ ≤ r·‖x‖, with norms over all leaves of a block.

    .. math:: u \leftarrow \min(1,\; r\,\|x\|/\|u\|)\; u

    Norms are float32 whatever the leaves' dtype; updates keep theirs. Rescaling x and u by powers
    of two rescales the float32 result by the same power, bit for bit, while all norms lie within
    1e-19 … 1e19, where their squares neither underflow nor overflow.

    Edge cases: u = 0 stays 0. ‖x‖ = 0: no clip, since a bound of 0 would freeze the block forever.
    r = inf: updates pass unchanged, and the norms are still recorded. A NaN in u or x: the block
    passes unclipped, so that the faulty leaf can be found (`optax.apply_if_finite` skips such
    steps). ‖u‖ = inf: finite entries become 0 and infinite ones NaN. ‖x‖ = inf: no clip. A leaf
    whose update is None stays None and counts in neither norm.

    Under `jit` the norms are global, however the leaves are sharded. Inside `shard_map` a leaf is
    one shard: name in `axis_name` the mesh axes over which *every* leaf is split; a replicated leaf
    would be counted once per shard.

    Args:
      max_ratio: r ≥ 0, dimensionless: the largest ‖u‖/‖x‖, a number or a schedule.
      blocks: None for one block of all leaves that the transform sees (leaves hidden by
        `optax.masked` or `optax.partition` do not count); a tree of labels with the parameters'
        structure or a prefix of it; or a function from the parameters to such a tree. Leaves with
        one label share a norm. The label `ROWS`: every index of the leaf's first axis is a block;
        `Rows("name")`: every index of the leaves that have this label.
      axis_name: mesh axis name or names of the enclosing `shard_map`; None outside.

    Returns:
      A transformation with state `RelativeClipState`.

    Raises:
      ValueError: r negative or NaN, a leaf that is not floating point, a leaf without a label or a
        label without a leaf, or (from `update`) no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import clip_by_relative_global_norm
      >>> tx = clip_by_relative_global_norm(0.5)
      >>> params, grads = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 10.0])}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(updates["w"], state.ratio, state.clipped)
      [0.  2.5] 2.0 True

    References:
      Li, Bhojanapalli, Zaheer, Reddi, Kumar, *Robust Training of Neural Networks Using Scale
      Invariant Architectures*, ICML 2022, https://arxiv.org/abs/2202.00980, Algorithm 1 (global);
      appendix G (one norm per scale-invariant block). The handling of zeros, NaN and rows is ours.
    """
    check_scalar("max_ratio", max_ratio)
    untouched = isinstance(max_ratio, float) and math.isinf(max_ratio)

    def init_fn(params):
        floating_leaves(params)
        names = [block.name for block in assign_blocks(blocks, params)]

        def zero(dtype):
            return {name: jnp.zeros([], dtype) for name in names} if names else jnp.zeros([], dtype)

        return RelativeClipState(
            count=jnp.zeros([], jnp.int32),
            max_ratio=jnp.zeros([], jnp.float32),
            grad_norm=zero(jnp.float32),
            param_norm=zero(jnp.float32),
            ratio=zero(jnp.float32),
            clipped=zero(jnp.bool_),
            clipped_fraction=zero(jnp.float32),
            clipped_steps=zero(jnp.int32),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        floating_leaves(updates)
        us, xs = aligned(updates, params), jax.tree.leaves(params)
        ratio = value_at(max_ratio, state.count).astype(jnp.float32)
        parts = assign_blocks(blocks, params)
        if parts:
            outs, measured = _clip_blocks(us, xs, parts, ratio, axis_name)
        else:
            present = [i for i, u in enumerate(us) if u is not None]
            whole = Block("", tuple(present), rows=False)
            outs, measured = _clip_block(
                [us[i] for i in present], [xs[i] for i in present], whole, ratio, axis_name
            )
        new_state = RelativeClipState(
            count=optax.safe_increment(state.count),
            max_ratio=ratio,
            **measured._asdict(),
            clipped_steps=jax.tree.map(
                lambda n, c: n + c.astype(jnp.int32), state.clipped_steps, measured.clipped
            ),
        )
        if untouched:
            norms = jax.tree.leaves((measured.grad_norm, measured.param_norm))
            return after(sum(norms), updates), new_state
        return like_updates(outs, updates), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
