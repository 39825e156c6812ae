"""Keep every block of parameters on the sphere where it began; the learning rate is an angle.

Letters: W a block of parameters, R its norm, u the inner optimizer's update, η the angle.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    BlocksOrFn,
    aligned,
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
      radius: float32, dict from the block's name to R: a scalar, or for ROWS one per row in a shape
        that multiplies the leaf.
      inner: state of the inner transform.
    """

    count: jax.Array
    radius: dict[str, jax.Array]
    inner: optax.OptState


def _leaf_labels(tree: optax.Params) -> optax.Params:
    """Label every leaf by its own path: one block a tensor."""
    return jax.tree.unflatten(jax.tree.structure(tree), leaf_names(tree))


class _Sums:
    """Sums over a block: of all its leaves, or one per row; over all devices of `axis_name`."""

    def __init__(self, rows: bool, axis_name: AxisName):
        self.rows, self.axis_name = rows, axis_name

    def _axes(self, leaf: jax.Array) -> tuple[int, ...]:
        return tuple(range(1 if self.rows else 0, leaf.ndim))

    def dot(self, xs, us, x_size, u_size) -> jax.Array:
        """Return ⟨x, u⟩/(x_size·u_size) of float32 leaves; x is scaled before it is multiplied."""
        products = [x * (1 / x_size) * u for x, u in zip(xs, us)]
        total = sum(jnp.sum(p, axis=self._axes(p), keepdims=self.rows) for p in products)
        total = total if self.axis_name is None else jax.lax.psum(total, self.axis_name)
        return total / u_size

    def square(self, xs, x_size) -> jax.Array:
        """Return ‖x‖²/x_size² of float32 leaves."""
        # Not scaled by 1/x_size: XLA would keep what two sums share in memory, for two more passes.
        scaled = [x * (0.5 / x_size) for x in xs]
        total = sum(jnp.sum(x * x, axis=self._axes(x), keepdims=self.rows) for x in scaled)
        return 4 * (total if self.axis_name is None else jax.lax.psum(total, self.axis_name))

    def size(self, leaves) -> jax.Array:
        """Return a power of two near the largest entry, 1 for zeros: a scale that rounds nothing.

        Entries scaled by it have squares that neither vanish nor overflow.
        """
        largest = functools.reduce(
            jnp.maximum,
            [
                jnp.max(jnp.abs(leaf), axis=self._axes(leaf), keepdims=self.rows, initial=0.0)
                for leaf in leaves
            ],
        )
        if self.axis_name is not None:
            largest = jax.lax.pmax(largest, self.axis_name)
        return power_of_two(largest)

    def norm(self, leaves) -> jax.Array:
        size = self.size(leaves)
        return size * jnp.sqrt(self.square(leaves, size))


def _float32(leaves) -> list[jax.Array]:
    return [leaf.astype(jnp.float32) for leaf in leaves]


def _radii(params: optax.Params, blocks: BlocksOrFn, axis_name: AxisName):
    leaves = _float32(jax.tree.leaves(params))
    radii = {
        block.name: _Sums(block.rows, axis_name).norm([leaves[i] for i in block.leaves])
        for block in assign_blocks(blocks, params)
    }
    return radii or jnp.zeros([], jnp.float32)  # one leaf, as optax.tree.map_params needs it


def _step_on_sphere(xs, us, radius, eta, sums: _Sums):
    """Return R·N(x + ηR·N(u)) − x of one block.

    ‖x + su‖² = ‖x‖² + 2s⟨x, u⟩ + s²‖u‖², so that nothing is written between measuring and moving;
    x in units of R and u in units of its largest entry, since only directions count. Only zeros are
    guarded: NaN, and an infinite ‖u‖ through 0·∞, reach s or `factor` and so x.
    """
    x32, u32 = _float32(xs), _float32(us)
    unit, size = power_of_two(radius), sums.size(u32)
    length = jnp.sqrt(sums.square(u32, size))
    # s·u in units of R.
    s = jnp.where(length == 0, 0.0, eta * (radius / unit) / jnp.where(length == 0, 1.0, length))
    moved = sums.square(x32, unit) + 2 * s * sums.dot(x32, u32, unit, size)
    moved = jnp.sqrt(moved + jnp.square(s * length))
    factor = jnp.where(moved == 0, 0.0, (radius / unit) / jnp.where(moved == 0, 1.0, moved))

    def leaf(x, u):
        wide = widened(x)
        step = (s * unit).astype(wide.dtype) * (
            u.astype(wide.dtype) * (1 / size).astype(wide.dtype)
        )
        return (factor.astype(wide.dtype) * (wide + step) - wide).astype(x.dtype)

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

    Only the direction of u counts, so the inner learning rate cancels: give it 1, and no weight
    decay. For u ⟂ W the step turns W by arctan η ≈ η radians; a decaying η is a decaying angle, and
    η = √(2·lr·wd) is the equilibrium angle of SGD with weight decay.

    `hyperball(optax.sgd(1.0, momentum=0.9), η)` is momentum SGD on the sphere and
    `hyperball(optax.contrib.muon(1.0), η)` is Muon on the sphere. Meant for matrices: put biases
    and gains under another optimizer with `optax.partition`.

    Stated results: u = 0 or η = 0 leaves W where it is, up to rounding. A block with R = 0 has no
    sphere: it stays 0. One NaN or inf in u makes its whole block NaN, and no other:
    `optax.apply_if_finite` skips such steps. A finite u of any size gives the same step as its
    multiples. A leaf whose u is None stays, and the others of its block keep their joint norm.

    Args:
      inner: an optimizer whose updates are *added* to the parameters, as every optax alias makes
        them (a bare `scale_by_*` points uphill).
      learning_rate: η ≥ 0 in radians, a number or a schedule of the step.
      blocks: which leaves share one sphere; None: each leaf has its own. Labels and ROWS as in
        `clip_by_relative_global_norm`.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split. The radius is
        measured in `init`, which must then run inside `shard_map` too.

    Returns:
      A transformation with state `HyperballState`. Extra arguments reach the inner transform.

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
