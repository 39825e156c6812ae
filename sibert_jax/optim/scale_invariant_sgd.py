"""SGD with weight decay and a clip tied to the weight norm, for scale-invariant parameters.

Notation: x parameters, g gradient at x, η learning rate, λ weight decay, C clip factor.
"""

import jax
import optax

from sibert_jax.optim.blocks import AxisName, BlocksOrFn
from sibert_jax.optim.equilibrium import clip_threshold
from sibert_jax.optim.relative_clip import clip_by_relative_global_norm
from sibert_jax.optim.scalars import check_scalar, value_at


def _decay_and_descend(
    updates: optax.Updates,
    params: optax.Params,
    learning_rate: jax.Array,
    weight_decay: jax.Array | None,
) -> optax.Updates:
    """Return −η·(g + λ·x), in the arithmetic order of the equivalent optax chain."""

    def leaf(g, x):
        if g is None:
            return None
        if weight_decay is not None:
            g = g + weight_decay.astype(x.dtype) * x
        return (-learning_rate).astype(g.dtype) * g

    return jax.tree.map(leaf, updates, params, is_leaf=lambda g: g is None)


def scale_invariant_sgd(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    clip_factor: float | None = 4.0,
    *,
    blocks: BlocksOrFn = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with weight decay and the √C clip, for scale-invariant parameters.

    .. math::
      m = \min(1,\; \sqrt{2 C \lambda_t / \eta_t}\; \|x\| / \|g\|), \qquad
      x \leftarrow (1 - \eta_t \lambda_t)\, x - \eta_t\, m\, g

    The gradient is clipped, the decay added, and the sum multiplied by −η. The threshold follows
    the scheduled η_t and λ_t. At equilibrium ‖g‖/‖x‖ = √(2λ/η), so a step turns x by at most √C
    times the equilibrium rotation √(2ηλ). The optimizer keeps no per-parameter state.

    Edge cases: η_t = 0 gives a zero update. λ_t = 0 has no equilibrium, so nothing is clipped
    (plain SGD). Zero gradient, ‖x‖ = 0, None, NaN and inf are as in `clip_by_relative_global_norm`.
    Rescaling (x, g, η, λ) to (cx, g/c, c²η, λ/c²) with c a power of two rescales the float32 step
    by c, bit for bit.

    Args:
      learning_rate: η ≥ 0, a number or a schedule.
      weight_decay: λ ≥ 0, multiplied by η, a number or a schedule.
      clip_factor: C > 1, dimensionless. 4 is the paper's √C = 2. None: no clip; the updates equal
        those of `optax.chain(optax.add_decayed_weights(λ), optax.sgd(η))` bit for bit, and the
        norms are still recorded.
      blocks: which leaves share a norm, see `clip_by_relative_global_norm`.
      axis_name: mesh axes inside `shard_map`, see `clip_by_relative_global_norm`.

    Returns:
      A transformation with state `RelativeClipState`.

    Raises:
      ValueError: η or λ negative, C ≤ 1, a leaf that is not floating point, or no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import scale_invariant_sgd
      >>> tx = scale_invariant_sgd(learning_rate=0.5, weight_decay=0.25, clip_factor=4.0)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([-40.0, 30.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates), state.clipped)
      [6.625 0.5  ] True

    References:
      Li, Bhojanapalli, Zaheer, Reddi, Kumar, *Robust Training of Neural Networks Using Scale
      Invariant Architectures*, ICML 2022, https://arxiv.org/abs/2202.00980, Algorithm 1.
    """
    check_scalar("learning_rate", learning_rate)
    check_scalar("weight_decay", weight_decay)
    if clip_factor is not None:
        check_scalar("clip_factor", clip_factor, minimum=1.0, strict=True)

    def max_ratio(count):
        eta, lam = value_at(learning_rate, count), value_at(weight_decay, count)
        return clip_threshold(eta, lam, clip_factor)

    clip = clip_by_relative_global_norm(
        float("inf") if clip_factor is None else max_ratio, blocks=blocks, axis_name=axis_name
    )
    # optax skips a constant decay of zero; adding 0·x would turn a gradient of −0 into +0.
    no_decay = isinstance(weight_decay, int | float) and weight_decay == 0

    def update_fn(updates, state, params=None, **extra_args):
        clipped, new_state = clip.update(updates, state, params, **extra_args)
        eta, lam = value_at(learning_rate, state.count), value_at(weight_decay, state.count)
        return _decay_and_descend(clipped, params, eta, None if no_decay else lam), new_state

    return optax.GradientTransformationExtraArgs(clip.init, update_fn)
