"""Keep every block of parameters on the sphere where it began; the learning rate is an angle.

Letters: W a block of parameters, R its norm, u the inner optimizer's update, η the angle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    BlocksOrFn,
    assign_blocks,
    floating_leaves,
    norm,
    path_name,
    row_norms,
    widened,
)
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at


class HyperballState(NamedTuple):
    """State of `hyperball`.

    Attributes:
      count: int32, steps taken.
      radius: float32, dict from the block's name to R: a scalar, or for ROWS one a row in a shape
        that multiplies the leaf.
      inner: state of the inner transform.
    """

    count: jax.Array
    radius: dict[str, jax.Array]
    inner: optax.OptState


def _leaf_labels(tree: optax.Params) -> optax.Params:
    """Label every leaf by its own path: one block a tensor."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path), tree)


def _radii(params: optax.Params, blocks: BlocksOrFn, axis_name: AxisName):
    leaves = jax.tree.leaves(params)
    return {
        block.name: row_norms(leaves[block.leaves[0]], axis_name)
        if block.rows
        else norm([leaves[i] for i in block.leaves], axis_name)
        for block in assign_blocks(blocks, params)
    }


def _dot(xs, us, rows: bool, axis_name: AxisName) -> jax.Array:
    """Return ⟨x, u⟩ in float32, over all leaves or row by row."""
    products = [x.astype(jnp.float32) * u.astype(jnp.float32) for x, u in zip(xs, us)]
    if rows:
        (product,) = products
        total = jnp.sum(product, axis=tuple(range(1, product.ndim)), keepdims=True)
    else:
        total = sum(jnp.sum(product) for product in products)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _step_on_sphere(xs, us, radius, eta, rows: bool, axis_name: AxisName):
    """Return R·N(x + ηR·N(u)) − x of one block.

    ‖x + su‖² = ‖x‖² + 2s⟨x, u⟩ + s²‖u‖², so that nothing is written between measuring and moving.
    Only zeros are guarded: NaN, and an infinite ‖u‖ through 0·∞, reach s or `factor` and so x.
    """
    length = jnp.sqrt(_dot(us, us, rows, axis_name))
    # u may be of any size: normalise before its square is multiplied by anything else.
    s = jnp.where(length == 0, 0.0, eta * radius / jnp.where(length == 0, 1.0, length))
    moved = _dot(xs, xs, rows, axis_name) + 2 * s * _dot(xs, us, rows, axis_name)
    moved = jnp.sqrt(moved + jnp.square(s * length))
    factor = jnp.where(moved == 0, 0.0, radius / jnp.where(moved == 0, 1.0, moved))

    def leaf(x, u):
        wide = widened(x)
        step = s.astype(wide.dtype) * u.astype(wide.dtype)
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
    sphere: it stays 0. One NaN or inf in u (or ‖u‖² > 3e38) makes its whole block NaN, and no
    other: `optax.apply_if_finite` skips such steps.

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
        us, treedef = jax.tree.flatten(directions)
        xs, outs = jax.tree.leaves(params), list(us)
        for block in assign_blocks(blocks, params):
            steps = _step_on_sphere(
                [xs[i] for i in block.leaves],
                [us[i] for i in block.leaves],
                state.radius[block.name],
                eta,
                block.rows,
                axis_name,
            )
            for i, step in zip(block.leaves, steps):
                outs[i] = step
        new_updates = jax.tree.unflatten(treedef, outs)
        new_state = HyperballState(optax.safe_increment(state.count), state.radius, inner_state)
        return new_updates, new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
