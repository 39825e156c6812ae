"""SGD with weight decay and a clip, with every block of parameters at its own equilibrium.

This form of the step, with measured learning rates, is ours.

Notation: x_b the parameters of block b, g_b their gradient, P = ηλ, σ_b the root mean square of
‖g_b‖·‖x_b‖, which does not depend on the scale of x_b.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    Block,
    BlocksOrFn,
    aligned,
    along_rows,
    assign_blocks,
    floating_leaves,
    like_updates,
    widened,
)
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_integer, check_scalar, value_at
from sibert_jax.optim.scale_invariant_sgd import scale_invariant_sgd


class ScaleToEquilibriumState(NamedTuple):
    """State of `scale_to_equilibrium`; dicts map a block's name to a scalar, or for ROWS (rows,).

    Attributes:
      count: int32, steps taken.
      measured: int32, gradients in the mean, except those of norm 0.
      mean_square: float32, σ_b².
      scale: float32, η_b of the last step.
    """

    count: jax.Array
    measured: dict[str, jax.Array]
    mean_square: dict[str, jax.Array]
    scale: dict[str, jax.Array]


_WHOLE = "all"


def _blocks_of(blocks: BlocksOrFn, params: optax.Params) -> tuple[Block, ...]:
    whole = Block(_WHOLE, tuple(range(len(jax.tree.leaves(params)))), rows=False)
    return assign_blocks(blocks, params) or (whole,)


def scale_to_equilibrium(
    eta_lambda: optax.ScalarOrSchedule,
    *,
    memory: int | None = 50,
    measure_steps: int = 20,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale each block's gradient to its norm at the equilibrium of SGD with weight decay.

    .. math:: u_b = \eta_b\, g_b, \qquad
      \eta_b = \sqrt{2P}\,\frac{\|x_b\|^2}{\sigma_b}, \qquad
      \sigma_b^2 = \text{mean of } (\|g_b\|\,\|x_b\|)^2

    A step along this gradient turns the block by √(2P), the angle at which the gradient balances a
    decay of P per step. The mean runs over about the last `memory` gradients (during the first
    10·memory steps, when gradients change fast, over the last tenth of them), so that the angle
    stays at √(2P) while they grow or shrink. With `memory=None` it runs over the first
    `measure_steps` gradients; η_b is then fixed, and the rest is plain SGD with one learning rate
    per block.

    Multiplying the loss or a block by any number leaves the directions unchanged from the first
    step on: where the loss is invariant to the scale of a block, η_b ∝ ‖x_b‖² compensates for that
    scale. This is exact for powers of two while norms and their products lie within 1e-19 … 1e19,
    where squares neither underflow nor overflow.

    Edge cases: a block of norm 0 or without a gradient gets updates of 0, and its mean starts with
    its first gradient. NaN or inf in a block's gradient makes its mean NaN permanently: wrap the
    optimizer in `optax.apply_if_finite`.

    Args:
      eta_lambda: P, in [0, 1): a number or a schedule.
      memory: ≥ 1, steps over which σ_b² is averaged, with weights that decay by 1 − 1/memory; None:
        η_b is fixed after `measure_steps`.
      measure_steps: ≥ 1, gradients that η_b is measured from if `memory` is None.
      blocks: as in `clip_by_relative_global_norm`; None: one block of all leaves.
      axis_name: as in `clip_by_relative_global_norm`.

    Returns:
      A transformation with state `ScaleToEquilibriumState`: three numbers per block.

    Raises:
      ValueError: a number out of its range, a leaf that is not floating point, bad labels, or no
        `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import scale_to_equilibrium
      >>> tx = scale_to_equilibrium(0.02)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([80.0, -60.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(f"{jnp.linalg.norm(updates) / jnp.linalg.norm(params):.3f}")  # √(2·0.02)
      0.200

    References:
      Li et al., https://arxiv.org/abs/2202.00980, section 4 (the equilibrium) and appendix G (one
      norm per block). Measuring η_b is ours.
    """
    check_scalar("eta_lambda", eta_lambda, below=1.0)
    measure_steps = check_integer("measure_steps", measure_steps, minimum=1)
    if memory is not None:
        memory = check_integer("memory", memory, minimum=1)

    def init_fn(params):
        leaves = floating_leaves(params)

        def zeros(dtype):
            return {
                block.name: jnp.zeros(
                    jnp.shape(leaves[block.leaves[0]])[:1] if block.rows else (), dtype
                )
                for block in _blocks_of(blocks, params)
            }

        return ScaleToEquilibriumState(
            jnp.zeros([], jnp.int32), zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32)
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        floating_leaves(updates)
        us, xs = aligned(updates, params), jax.tree.leaves(params)
        angle = jnp.sqrt(2 * value_at(eta_lambda, state.count).astype(jnp.float32))
        fields = {"measured": {}, "mean_square": {}, "scale": {}}
        for block in _blocks_of(blocks, params):
            name = block.name
            members = [i for i in block.leaves if us[i] is not None]
            if not members:
                for field, values in fields.items():
                    values[name] = getattr(state, field)[name]
                continue
            x_norm = block.norm([xs[i] for i in members], axis_name)
            g_norm = block.norm([us[i] for i in members], axis_name)
            count, mean_square = _mean(
                state.measured[name],
                state.mean_square[name],
                jnp.square(x_norm * g_norm),
                memory,
                measure_steps,
            )
            sigma = jnp.sqrt(mean_square)
            is_zero = sigma == 0
            per_norm = jnp.where(is_zero, 0.0, x_norm / jnp.where(is_zero, 1.0, sigma))
            scale = angle * x_norm * per_norm
            if memory is None:  # once measured, the learning rate is fixed, not the angle
                is_open = state.measured[name] < measure_steps
                scale = jnp.where(is_open, scale, state.scale[name])
            fields["measured"][name], fields["mean_square"][name] = count, mean_square
            fields["scale"][name] = scale
            for i in members:
                wide = widened(us[i])
                factor = along_rows(scale, wide).astype(wide.dtype)
                us[i] = (wide * factor).astype(us[i].dtype)
        new_state = ScaleToEquilibriumState(optax.safe_increment(state.count), **fields)
        return like_updates(us, updates), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _mean(measured, mean_square, square, memory: int | None, measure_steps: int):
    """Return the count of gradients and the mean of their squares, updated with one more."""
    counts = square != 0
    if memory is None:
        counts &= measured < measure_steps
        steps = (measured + 1).astype(jnp.float32)
    else:
        steps = jnp.minimum(1 + measured.astype(jnp.float32) / 10, memory)
    mean = jnp.where(counts, mean_square + (square - mean_square) / steps, mean_square)
    return measured + counts.astype(jnp.int32), mean


def equilibrium_sgd(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float,
    *,
    clip_factor: float | None = 4.0,
    memory: int | None = 50,
    measure_steps: int = 20,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with weight decay and a clip, with every block at its equilibrium from the start.

    .. math:: x_b \leftarrow (1 - s\,P)\,x_b
        - s\,\min\Big(1, \sqrt{2CP/s}\,\frac{\|x_b\|}{\|u_b\|}\Big)\,u_b, \qquad
        u_b = \eta_b\,g_b \text{ of } \texttt{scale\_to\_equilibrium}(P)

    This is `scale_invariant_sgd(s, P)` on the gradients of `scale_to_equilibrium(P)`: the paper's
    step with one norm per block and with the learning rates at which each block turns by √(2P) per
    step from the start. P is the only number to choose, whatever the scale of the loss and the
    parameters.

    Args:
      learning_rate: s, a number or a schedule that starts at or warms up to 1; multiplies every
        η_b.
      weight_decay: P = ηλ at s = 1, in (0, 1); to start with, 4 / number of steps.
      clip_factor: C > 1; None: no clip. See `scale_invariant_sgd`.
      memory: see `scale_to_equilibrium`.
      measure_steps: see `scale_to_equilibrium`.
      blocks: see `clip_by_relative_global_norm`.
      axis_name: see `clip_by_relative_global_norm`.

    Returns:
      A transformation with the states of both transforms: numbers per block, nothing per parameter.

    Raises:
      ValueError: as for both transforms.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import equilibrium_sgd
      >>> tx = equilibrium_sgd(1.0, 0.02)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([80.0, -60.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> new = params + updates
      >>> print(f"{new[0]:.2f} {new[1]:.2f} {jnp.linalg.norm(new):.3f}")  # the norm stays
      2.14 4.52 5.001

    References:
      Li et al., https://arxiv.org/abs/2202.00980, Algorithm 1 and appendix G.
    """
    check_scalar("weight_decay", weight_decay, strict=True, below=1.0)
    return optax.chain(
        scale_to_equilibrium(
            weight_decay,
            memory=memory,
            measure_steps=measure_steps,
            blocks=blocks,
            axis_name=axis_name,
        ),
        scale_invariant_sgd(
            learning_rate, weight_decay, clip_factor, blocks=blocks, axis_name=axis_name
        ),
    )
