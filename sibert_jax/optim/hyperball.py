"""Keep every block of parameters on its initial sphere; the learning rate is an angle.

Notation: W a block of parameters, R its norm, u the inner optimizer's update, η the angle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    BlocksOrFn,
    aligned,
    along_rows,
    assign_blocks,
    floating_leaves,
    leaf_names,
    like_updates,
    power_of_two,
    widened,
)
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at


class HyperballState(NamedTuple):
    """State of `hyperball`.

    Attributes:
      count: int32, steps taken.
      radius: float32, a dict from the block's name to R: a scalar, or for ROWS (rows,).
      inner: state of the inner transformation.
    """

    count: jax.Array
    radius: dict[str, jax.Array]
    inner: optax.OptState


def _leaf_labels(tree: optax.Params) -> optax.Params:
    """Label every leaf by its path: one block per tensor."""
    return jax.tree.unflatten(jax.tree.structure(tree), leaf_names(tree))


class _Sums:
    """Sums over all leaves of a block, or per row, across all devices of `axis_name`."""

    def __init__(self, rows: bool, axis_name: AxisName):
        self.rows, self.axis_name = rows, axis_name

    def _axes(self, leaf: jax.Array) -> tuple[int, ...]:
        return tuple(range(1 if self.rows else 0, leaf.ndim))

    def totals(self, products: list[tuple[jax.Array, ...]]) -> tuple[jax.Array, ...]:
        """Sum each of several float32 products per leaf, in one pass over their factors.

        Args:
          products: for each leaf of the block, the same number of arrays of the leaf's shape.
        """

        def of_leaf(arrays):
            axes = self._axes(arrays[0])
            partial = _sum_trailing(arrays, axes)
            return [jnp.sum(a, axis=axes) for a in partial]

        totals = tuple(sum(parts) for parts in zip(*map(of_leaf, products)))
        return totals if self.axis_name is None else jax.lax.psum(totals, self.axis_name)

    def norm(self, leaves: list[jax.Array]) -> jax.Array:
        """Return the norm of float32 leaves of any magnitude."""
        length, scale = _length(self.totals([_squares(leaf) for leaf in leaves]))
        return length / scale


def _sum_trailing(arrays, axes: tuple[int, ...]) -> list[jax.Array]:
    """Sum all arrays over their last axes at once, keeping dims; XLA does not fuse separate sums.

    Sums a few hundred numbers at a time: a sequential sum of millions would lose digits.
    """
    shape, count, trailing = arrays[0].shape, 1, []
    for axis in reversed(axes):
        if count < 256:
            count, trailing = count * shape[axis], [axis, *trailing]
    zeros = (jnp.zeros([], jnp.float32),) * len(arrays)
    reduced = jax.lax.reduce(tuple(arrays), zeros, _add, tuple(trailing)) if trailing else arrays
    return [jnp.expand_dims(a, trailing) for a in reduced]


def _add(xs, ys):
    return tuple(x + y for x, y in zip(xs, ys))


# Squares of float32 numbers may underflow or overflow. Those of one of these multiples do neither,
# so all three are summed in the same pass.
_SCALES = (2.0**-80, 1.0, 2.0**80)


def _squares(u: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.square(u * scale) for scale in _SCALES)


def _choose(squares: tuple[jax.Array, ...], values):
    """Return the value for the scale with usable squares; the first one for NaN."""
    small, usable = squares[1] < 2.0**-98, squares[1] < 2.0**126
    return jnp.where(small, values[2], jnp.where(usable, values[1], values[0]))


def _length(squares: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Return the norm of scale·u, and that scale."""
    scale = _choose(squares, [jnp.float32(scale) for scale in _SCALES])
    return jnp.sqrt(_choose(squares, squares)), scale


def _float32(leaves) -> list[jax.Array]:
    return [leaf.astype(jnp.float32) for leaf in leaves]


def _radii(params: optax.Params, blocks: BlocksOrFn, axis_name: AxisName):
    leaves = _float32(jax.tree.leaves(params))
    radii = {
        block.name: _Sums(block.rows, axis_name).norm([leaves[i] for i in block.leaves])
        for block in assign_blocks(blocks, params)
    }
    return radii or jnp.zeros([], jnp.float32)  # optax.tree.map_params needs one leaf


def _step_on_sphere(xs, us, radius, eta, sums: _Sums):
    """Return R·N(x + ηR·N(u)) − x for one block.

    ‖x + tN(u)‖² = ‖x‖² + 2t⟨x, N(u)⟩ + t², so nothing is written between measuring and moving: x
    and u are read once for the sums and once for the step. Only directions count, so x is taken in
    units of R and u in units of _SCALES. Only zeros are guarded: NaN, and an infinite ‖u‖ through
    0·∞, reach `moved` and so x.
    """
    unit = power_of_two(radius)

    def products(x, u):
        x = x * along_rows(1 / unit, x)
        return (jnp.square(x), *(x * (u * scale) for scale in _SCALES), *_squares(u))

    square, *rest = sums.totals([products(x, u) for x, u in zip(_float32(xs), _float32(us))])
    length, scale = _length(rest[3:])
    dot = _choose(rest[3:], rest[:3])
    inverse = jnp.where(length == 0, 0.0, 1 / jnp.where(length == 0, 1.0, length))
    t = eta * (radius / unit)
    moved = square + 2 * t * (dot * inverse) + jnp.square(t * (inverse * length))
    moved = jnp.sqrt(moved)
    factor = jnp.where(moved == 0, 0.0, (radius / unit) / jnp.where(moved == 0, 1.0, moved))

    def leaf(x, u):
        wide = widened(x)

        def spread(number):
            return along_rows(number, wide).astype(wide.dtype)

        step = spread(t * unit) * (u.astype(wide.dtype) * spread(scale) * spread(inverse))
        return (spread(factor) * (wide + step) - wide).astype(x.dtype)

    return [leaf(x, u) for x, u in zip(xs, us)]


def hyperball(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    *,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Turn any optimizer's updates into steps of fixed norm on the sphere ‖W‖ = R.

    .. math:: W \leftarrow R\,\mathcal N\big(W + \eta R\,\mathcal N(u)\big), \qquad
      \mathcal N(v) = v/\|v\|, \quad R = \|W_0\|

    Only the direction of u counts, so the inner learning rate cancels: set it to 1, without weight
    decay. For u ⟂ W the step turns W by arctan η ≈ η radians; a decaying η is a decaying angle, and
    η = √(2·lr·wd) is the equilibrium angle of SGD with weight decay.

    `hyperball(optax.sgd(1.0, momentum=0.9), η)` is momentum SGD on the sphere and
    `hyperball(optax.contrib.muon(1.0), η)` is Muon on the sphere. Meant for matrices: train biases
    and gains with another optimizer through `optax.partition`.

    Edge cases: u = 0 or η = 0 leaves W unchanged, up to rounding. A block with R = 0 stays 0. One
    NaN or inf in u makes its whole block NaN, and no other block: `optax.apply_if_finite` skips
    such steps. The step does not depend on the magnitude of a finite u. A leaf whose u is None is
    unchanged, and the others of its block keep their joint norm.

    Args:
      inner: an optimizer whose updates are *added* to the parameters, as with every optax alias (a
        bare `scale_by_*` points uphill).
      learning_rate: η ≥ 0 in radians, a number or a schedule.
      blocks: which leaves share one sphere; None: each leaf has its own. Labels and ROWS as in
        `clip_by_relative_global_norm`.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split. The radius is
        measured in `init`, which must then run inside `shard_map` too.

    Returns:
      A transformation with state `HyperballState`. Extra arguments are passed to `inner`.

    Raises:
      ValueError: η negative, a leaf that is not floating point, bad labels, or no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import hyperball
      >>> tx = hyperball(optax.sgd(1.0), learning_rate=0.1)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([8.0, -6.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> new = params + updates
      >>> print(f"{new[0]:.4f} {new[1]:.4f} {jnp.linalg.norm(new):.4f}")
      2.5871 4.2787 5.0000

    References:
      Wen et al., *Hyperball*, https://arxiv.org/abs/2606.16899.
      Kosson, Messmer, Jaggi, *Rotational Equilibrium*, https://arxiv.org/abs/2305.17212 (fixed
      norm, fixed angle).
    """
    check_scalar("learning_rate", learning_rate)
    inner = optax.with_extra_args_support(inner)
    blocks = _leaf_labels if blocks is None else blocks

    def init_fn(params):
        floating_leaves(params)
        return HyperballState(
            count=jnp.zeros([], jnp.int32),
            radius=_radii(params, blocks, axis_name),
            inner=inner.init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        directions, inner_state = inner.update(updates, state.inner, params, **extra_args)
        eta = value_at(learning_rate, state.count).astype(jnp.float32)
        us, xs = aligned(directions, params), jax.tree.leaves(params)
        outs = list(us)
        for block in assign_blocks(blocks, params):
            members = [i for i in block.leaves if us[i] is not None]
            if not members:
                continue
            sums, moving = _Sums(block.rows, axis_name), [xs[i] for i in members]
            whole = len(members) == len(block.leaves)
            radius = state.radius[block.name] if whole else sums.norm(_float32(moving))
            steps = _step_on_sphere(moving, [us[i] for i in members], radius, eta, sums)
            for i, step in zip(members, steps):
                outs[i] = step
        new_state = HyperballState(optax.safe_increment(state.count), state.radius, inner_state)
        return like_updates(outs, directions), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
