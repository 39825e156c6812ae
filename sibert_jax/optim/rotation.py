"""The angle by which an update rotates the parameters, and related quantities.

A NaN among the arguments gives NaN. Norms are float32 sums of squares: one below 1e-19 counts as 0,
one above 1e19 as infinite.

Notation: x parameters, u updates (what is added to x), g gradient at x.
"""

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import AxisName, norm


def _component(
    us: list[jax.Array], xs: list[jax.Array], x_norm: jax.Array, axis_name: AxisName
) -> jax.Array:
    """Return ⟨u, x/‖x‖⟩."""
    total = jnp.zeros([], jnp.float32)
    for u, x in zip(us, xs):
        total = total + jnp.sum(u.astype(jnp.float32) * x.astype(jnp.float32))
    return (total if axis_name is None else jax.lax.psum(total, axis_name)) / x_norm


def rotation(
    params: optax.Params, updates: optax.Updates, *, axis_name: AxisName = None
) -> jax.Array:
    r"""Return the angle between x and x + u in radians.

    .. math:: \operatorname{atan2}(\|u - (\langle u,x\rangle/\|x\|^2)\, x\|,\;
      \|x\| + \langle u,x\rangle/\|x\|)

    The tangential part is formed before its norm is taken, so angles far below 1e-4, where the
    float32 arccos of a cosine returns 0, keep their digits.

    Args:
      params: x, all leaves taken as one vector.
      updates: u, with the structure of x.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split.

    Returns:
      Radians in [0, π], float32; 0 where x = 0, which has no direction.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import rotation
      >>> print(rotation(jnp.array([1e3, 0.0]), jnp.array([-1.0, 1e-3])))
      1.001001e-06
    """
    xs, us = jax.tree.leaves(params), jax.tree.leaves(updates)
    param_norm = norm(xs, axis_name)
    safe_norm = jnp.where(param_norm == 0, 1.0, param_norm)
    radial = _component(us, xs, safe_norm, axis_name)
    tangential = norm(
        [
            u.astype(jnp.float32) - (radial / safe_norm) * x.astype(jnp.float32)
            for u, x in zip(us, xs)
        ],
        axis_name,
    )
    return jnp.where(param_norm == 0, 0.0, jnp.arctan2(tangential, param_norm + radial))


def sgd_rotation(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    param_norm: jax.typing.ArrayLike,
    grad_norm: jax.typing.ArrayLike,
    cosine: jax.typing.ArrayLike,
) -> jax.Array:
    r"""Return the angle between x and (1−ηλ)x − ηg in radians, from known norms.

    .. math:: \operatorname{atan2}(\eta\|g\| \sqrt{1-c^2},\; (1-\eta\lambda)\|x\| - \eta\|g\|c)

    Reads no parameters, where `rotation` reads x and u twice. Up to rounding it equals `rotation`
    for u = −η(g + λx), as long as the float32 sum x + u keeps the digits of u.

    Args:
      learning_rate: η ≥ 0.
      weight_decay: λ ≥ 0.
      param_norm: ‖x‖.
      grad_norm: ‖g‖, after any clipping.
      cosine: c = ⟨x, g⟩/(‖x‖‖g‖), from `radial_cosine`.

    Returns:
      Radians in [0, π], float32; 0 where ‖x‖ = 0.

    Example:
      >>> from sibert_jax.optim import sgd_rotation
      >>> print(f"{sgd_rotation(0.5, 0.25, param_norm=1.0, grad_norm=1.75, cosine=0.0):.4f}")  # π/4
      0.7854
    """
    eta, lam, x, g, c = (
        jnp.asarray(value, jnp.float32)
        for value in (learning_rate, weight_decay, param_norm, grad_norm, cosine)
    )
    length = eta * g
    tangential = length * jnp.sqrt(jnp.maximum((1 - c) * (1 + c), 0.0))
    return jnp.where(x == 0, 0.0, jnp.arctan2(tangential, (1 - eta * lam) * x - length * c))


def radial_cosine(
    params: optax.Params, grads: optax.Updates, *, axis_name: AxisName = None
) -> jax.Array:
    r"""Return ⟨x, g⟩/(‖x‖‖g‖), which is 0 where the loss is invariant to the scale of x.

    Args:
      params: x, all leaves taken as one vector.
      grads: g, with the structure of x.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split.

    Returns:
      The cosine in [−1, 1], float32; 0 where x or g is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import radial_cosine
      >>> print(radial_cosine(jnp.array([3.0, 4.0]), jnp.array([-4.0, 3.0])))
      0.0

    References:
      Euler's theorem on homogeneous functions; Li et al., https://arxiv.org/abs/2202.00980,
      section 2.
    """
    xs, gs = jax.tree.leaves(params), jax.tree.leaves(grads)
    x_norm, g_norm = norm(xs, axis_name), norm(gs, axis_name)
    undefined = (x_norm == 0) | (g_norm == 0)
    component = _component(gs, xs, jnp.where(undefined, 1.0, x_norm), axis_name)
    return jnp.where(undefined, 0.0, component / jnp.where(undefined, 1.0, g_norm))


def effective_learning_rate(
    learning_rate: jax.typing.ArrayLike, params: optax.Params, *, axis_name: AxisName = None
) -> jax.Array:
    r"""Return η/‖x‖², the learning rate of the direction x/‖x‖; 0 where x = 0.

    Args:
      learning_rate: η.
      params: x, all leaves taken as one vector.
      axis_name: mesh axes of an enclosing `shard_map` over which every leaf is split.

    Returns:
      η/‖x‖², float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from sibert_jax.optim import effective_learning_rate
      >>> print(effective_learning_rate(0.5, jnp.array([3.0, 4.0])))
      0.02

    References:
      Arora, Li, Lyu, *Theoretical Analysis of Auto Rate-Tuning by Batch Normalization*,
      https://arxiv.org/abs/1812.03981.
    """
    param_norm = norm(jax.tree.leaves(params), axis_name)
    safe_norm = jnp.where(param_norm == 0, 1.0, param_norm)
    eta = jnp.asarray(learning_rate, jnp.float32)
    return jnp.where(param_norm == 0, 0.0, eta / safe_norm / safe_norm)
