"""SGD-SaI: momentum SGD with one learning rate per tensor, fixed by the first gradient.

Notation: g gradient, s its standard deviation, N its number of entries, a the factor of a tensor.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import (
    AxisName,
    aligned,
    floating_leaves,
    like_updates,
    power_of_two,
    widened,
)
from sibert_jax.optim.scalars import NO_PARAMS_MSG, check_scalar, value_at

Scaling = Literal["snr", "snr_max_normalized", "sqrt_size"]
SCALINGS = ("snr", "snr_max_normalized", "sqrt_size")


class SgdSaiState(NamedTuple):
    """State of `sgd_sai`.

    Attributes:
      count: int32, steps taken.
      is_measured: bool, whether `scale` holds measured factors. Set it to False
        (`optax.tree.set(state, is_measured=jnp.array(False))`) to measure again at the next step.
      scale: float32 scalars in the structure of the parameters: the factor a of each tensor.
      momentum: the averaged gradient, with the structure, shapes and dtypes of the parameters.
    """

    count: jax.Array
    is_measured: jax.Array
    scale: optax.Params
    momentum: optax.Params


def _sum(x: jax.Array, axis_name: AxisName) -> jax.Array:
    total = jnp.sum(x)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _like_params(leaves: list[jax.Array], params: optax.Params) -> optax.Params:
    """Return leaves in the structure of `params`."""
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def gradient_snr(
    g: jax.Array, eps: float = 1e-8, *, ddof: int = 1, axis_name: AxisName = None
) -> jax.Array:
    r"""Return ‖g‖/(s + eps·r), the signal-to-noise ratio of one gradient tensor.

    .. math:: s^2 = \frac{1}{N - \mathrm{ddof}} \sum_i (g_i - \bar g)^2, \qquad
      r^2 = \frac{1}{N} \sum_i g_i^2

    Without eps and with ddof = 1 it obeys a² = (N−1) + N·ḡ²/s², so a is √(N−1) unless the mean
    entry is comparable with the spread. It does not depend on the scale of g. The authors' code
    adds eps alone, which differs by a relative eps/s and makes the ratio vanish for gradients with
    s ≲ eps. One-element tensors and all-zero gradients have no spread: they get √N, the value for a
    gradient of mean 0. A gradient of equal entries gets about √N/eps.

    Args:
      g: the gradient tensor, any shape and floating dtype.
      eps: bounds the ratio of a gradient with equal entries; relative to its root mean square.
      ddof: 1 as in the authors' code, 0 as in the paper.
      axis_name: mesh axes of an enclosing `shard_map` over which g is split.

    Returns:
      The ratio, a float32 scalar, finite for finite g.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import gradient_snr
      >>> print(f"{gradient_snr(jnp.array([1.0, -1.0, 1.0, -1.0])):.4f}")  # √(N−1)
      1.7321
    """
    wide = g.astype(jnp.float32)
    shards = 1 if axis_name is None else jax.lax.psum(1, axis_name)
    size = g.size * shards
    if size <= 1:
        return jnp.float32(size**0.5)
    largest = jnp.max(jnp.abs(wide))
    wide = wide / power_of_two(largest if axis_name is None else jax.lax.pmax(largest, axis_name))
    mean = _sum(wide, axis_name) / size
    spread = jnp.sqrt(_sum(jnp.square(wide - mean), axis_name) / max(size - ddof, 1))
    norm = jnp.sqrt(_sum(jnp.square(wide), axis_name))
    ratio = norm / jnp.where(norm == 0, 1.0, spread + eps * norm / size**0.5)
    return jnp.where(norm == 0, jnp.float32(size**0.5), ratio)


def _factors(grads: list[jax.Array], scaling: Scaling, eps: float, axis_name: AxisName):
    if scaling == "sqrt_size":
        shards = 1 if axis_name is None else jax.lax.psum(1, axis_name)
        return [jnp.float32((g.size * shards) ** 0.5) for g in grads]
    ddof = 1 if scaling == "snr" else 0
    factors = [gradient_snr(g, eps, ddof=ddof, axis_name=axis_name) for g in grads]
    if scaling == "snr":
        return factors
    largest = functools.reduce(jnp.maximum, factors)
    return [a / jnp.where(largest > 0, largest, 1.0) for a in factors]


def sgd_sai(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    momentum: float = 0.9,
    weight_decay: optax.ScalarOrSchedule = 1e-2,
    eps: float = 1e-8,
    *,
    scaling: Scaling = "snr",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum, each tensor's learning rate scaled by its first gradient's SNR.

    .. math::
      a = \|g_1\| / s(g_1), \qquad m_1 = g_1, \quad m_t = \mu m_{t-1} + (1-\mu) g_t,
      \qquad x \leftarrow (1 - \eta\lambda)\, x - \eta\, a\, m_t

    The decay is multiplied by η but not by a. The factors are part of the state: measured at the
    first step, and again only if `is_measured` is set to False.

    Since a² = (N−1) + N·ḡ²/s², `snr` is close to √N for every tensor; `sqrt_size` is the control
    that sets a = √N and needs no gradient.

    Edge cases: η = 0 updates only the average, λ = 0 skips the decay. A NaN or inf in the first
    gradient of a tensor makes its factor NaN permanently, a later one its average:
    `optax.apply_if_finite` around this transform skips such steps, including the first. A leaf
    whose gradient is None keeps its value and average; in the first step its factor becomes √N.

    Args:
      learning_rate: η ≥ 0, a number or a schedule.
      momentum: μ in [0, 1).
      weight_decay: λ ≥ 0, multiplied by η, a number or a schedule.
      eps: ε > 0, bounds the factor of a gradient with equal entries, see `gradient_snr`.
      scaling: `snr`, the authors' code (standard deviation with N−1, no normalization);
        `snr_max_normalized`, the paper's text (with N, divided by the largest factor); `sqrt_size`,
        the control a = √N. One-element tensors and tensors whose first gradient is zero get √N (in
        the authors' code 1e8·|g| and 0; the latter never train).
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split.

    Returns:
      A transformation with state `SgdSaiState`.

    Raises:
      ValueError: a number out of its range, an unknown scaling, a leaf that is not floating point,
        or no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import sgd_sai
      >>> tx = sgd_sai(0.1, weight_decay=0.0)
      >>> params, grads = jnp.zeros(4), jnp.array([1.0, -1.0, 1.0, -1.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(f"{updates[0]:.4f} {state.scale:.4f}")
      -0.1732 1.7321

    References:
      Xu, Xiang, Cai, Wen, *No More Adam: Learning Rate Scaling at Initialization is All You Need*,
      https://arxiv.org/abs/2412.11768, algorithm 1 (`snr_max_normalized`); the authors' published
      code differs as said above (`snr`).
    """
    check_scalar("learning_rate", learning_rate)
    check_scalar("momentum", momentum, below=1.0)
    check_scalar("weight_decay", weight_decay)
    check_scalar("eps", eps, strict=True)
    if scaling not in SCALINGS:
        raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, found {scaling!r}.")

    def init_fn(params):
        zeros = [jnp.zeros([], jnp.float32) for _ in floating_leaves(params)]
        return SgdSaiState(
            count=jnp.zeros([], jnp.int32),
            is_measured=jnp.zeros([], jnp.bool_),
            # With no leaves a single number, which optax.tree.map_params does not take for a
            # parameter.
            scale=_like_params(zeros, params) if zeros else jnp.zeros([], jnp.float32),
            momentum=optax.tree.zeros_like(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args  # unused; part of the optax interface
        if params is None:
            raise ValueError(NO_PARAMS_MSG)
        floating_leaves(updates)
        gs, xs = aligned(updates, params), jax.tree.leaves(params)
        if not xs:
            return updates, state._replace(count=optax.safe_increment(state.count))
        scale = jax.lax.cond(
            state.is_measured,
            lambda grads, scale: scale,
            lambda grads, scale: _factors(grads, scaling, eps, axis_name),
            [jnp.zeros_like(x) if g is None else g for g, x in zip(gs, xs)],
            jax.tree.leaves(state.scale),
        )
        eta, lam = value_at(learning_rate, state.count), value_at(weight_decay, state.count)
        # The average starts at the first gradient, not at zero.
        kept = jnp.where(state.count == 0, 0.0, jnp.asarray(momentum, jnp.float32))

        def averaged(m, g):
            m, g = widened(m), widened(g)
            return kept.astype(m.dtype) * m + (1 - kept).astype(g.dtype) * g

        def step(m, a, x):
            wide = widened(x)
            decay, rate = (lam.astype(wide.dtype), eta.astype(wide.dtype))
            return (-rate * (decay * wide + a.astype(m.dtype) * m)).astype(x.dtype)

        before = jax.tree.leaves(state.momentum)
        average = [m if g is None else averaged(m, g) for m, g in zip(before, gs)]
        steps = [None if g is None else step(m, a, x) for g, m, a, x in zip(gs, average, scale, xs)]
        new_state = SgdSaiState(
            count=optax.safe_increment(state.count),
            is_measured=jnp.ones([], jnp.bool_),
            scale=_like_params(scale, params),
            momentum=_like_params([m.astype(x.dtype) for m, x in zip(average, xs)], params),
        )
        return like_updates(steps, updates), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
