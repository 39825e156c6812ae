"""PSGD with a Kronecker product of small factors, one an axis of each tensor.

For a tensor G with factors Q₁, Q₂, …: A applies Qᵢ along each axis i of h, B applies Qᵢ⁻ᵀ along
each axis of v, and with the unfoldings A₍ᵢ₎, B₍ᵢ₎ along axis i

    Qᵢ ← Qᵢ − μ/L · triu(A₍ᵢ₎A₍ᵢ₎ᵀ − B₍ᵢ₎B₍ᵢ₎ᵀ) Qᵢ,    L ≥ ‖A₍ᵢ₎A₍ᵢ₎ᵀ + B₍ᵢ₎B₍ᵢ₎ᵀ‖.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.psgd.transform import (
    Form,
    Leaves,
    Mode,
    best_scalar,
    running_bound,
    scale_by_psgd,
    usable,
)
from sibert_jax.optim.scalars import check_scalar

_EXACT = jax.lax.Precision.HIGHEST


class KronPreconditioner(NamedTuple):
    """The preconditioner of one tensor.

    Attributes:
      factors: an axis each, float32: upper-triangular, or a vector for a diagonal.
      bounds: an axis each, float32 scalars: the curvature bound L.
    """

    factors: tuple[jax.Array, ...]
    bounds: tuple[jax.Array, ...]


def _along(factor: jax.Array, tensor: jax.Array, axis: int) -> jax.Array:
    """Multiply by the factor (matrix, or vector as a diagonal) along one axis."""
    if factor.ndim == 1:
        return tensor * factor.reshape([-1 if i == axis else 1 for i in range(tensor.ndim)])
    product = jnp.tensordot(factor, tensor, axes=(1, axis), precision=_EXACT)
    return jnp.moveaxis(product, 0, axis)


def _solve_transposed_along(factor: jax.Array, tensor: jax.Array, axis: int) -> jax.Array:
    """Multiply by the inverse of the factor's transpose along one axis."""
    if factor.ndim == 1:
        return _along(1 / factor, tensor, axis)
    front = jnp.moveaxis(tensor, axis, 0)
    solved = jax.scipy.linalg.solve_triangular(
        factor, front.reshape(front.shape[0], -1), trans=1, lower=False
    )
    return jnp.moveaxis(solved.reshape(front.shape), 0, axis)


def _second_moment(tensor: jax.Array, axis: int, factor: jax.Array) -> jax.Array:
    """Return T₍ᵢ₎T₍ᵢ₎ᵀ, or its diagonal for a diagonal factor."""
    unfolded = jnp.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    if factor.ndim == 1:
        return jnp.sum(jnp.square(unfolded), axis=1)
    return jnp.matmul(unfolded, unfolded.T, precision=_EXACT)


def _norm_bound(moment: jax.Array) -> jax.Array:
    """Bound the spectral norm of a symmetric matrix (or diagonal) from above."""
    if moment.ndim == 1:
        return jnp.max(jnp.abs(moment))
    frobenius = jnp.sqrt(jnp.sum(jnp.square(moment)))
    return jnp.minimum(frobenius, jnp.max(jnp.sum(jnp.abs(moment), axis=1)))


def _as_tensor(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(1) if leaf.ndim == 0 else leaf


def _fit_leaf(q: KronPreconditioner, v, h, mu: jax.Array, decay: float) -> KronPreconditioner:
    a, b = _as_tensor(h), _as_tensor(v)
    for axis, factor in enumerate(q.factors):
        a, b = _along(factor, a, axis), _solve_transposed_along(factor, b, axis)
    # L bounds the curvature of one factor; three and more that move together would overshoot.
    mu = mu / max(1, len(q.factors) - 1)
    factors, bounds = [], []
    for axis, (factor, previous) in enumerate(zip(q.factors, q.bounds)):
        aa, bb = _second_moment(a, axis, factor), _second_moment(b, axis, factor)
        bound = running_bound(previous, _norm_bound(aa + bb), decay)
        step = mu / jnp.where(bound > 0, bound, 1.0)
        if factor.ndim == 1:
            factors.append(factor - step * (aa - bb) * factor)
        else:
            descent = jnp.matmul(jnp.triu(aa - bb), factor, precision=_EXACT)
            factors.append(factor - step * descent)
        bounds.append(bound)
    keep = usable(h)
    fitted = KronPreconditioner(tuple(factors), tuple(bounds))
    return jax.tree.map(lambda new, old: jnp.where(keep, new, old), fitted, q)


def _apply_leaf(preconditioner: KronPreconditioner, g: jax.Array) -> jax.Array:
    out = _as_tensor(g)
    for axis, q in enumerate(preconditioner.factors):
        out = _along(q if q.ndim == 1 else q.T, _along(q, out, axis), axis)
    return out.reshape(g.shape)


def _kron_form(max_size_triangular: int, min_ndim_triangular: int) -> Form:
    def init(leaves: Leaves):
        def factor(size: int, ndim: int) -> jax.Array:
            dense = ndim >= min_ndim_triangular and 1 < size <= max_size_triangular
            return jnp.eye(size) if dense else jnp.ones(size)

        return [
            KronPreconditioner(
                factors=tuple(factor(n, leaf.ndim).astype(jnp.float32) for n in leaf.shape or (1,)),
                bounds=tuple(jnp.zeros([], jnp.float32) for _ in leaf.shape or (1,)),
            )
            for leaf in leaves
        ]

    def rescale(q, v: Leaves, h: Leaves):
        def rescaled(qi, vi, hi):
            scalar = best_scalar(vi, hi) ** (1 / len(qi.factors))
            return qi._replace(factors=tuple(f * scalar for f in qi.factors))

        return [rescaled(qi, vi, hi) for qi, vi, hi in zip(q, v, h)]

    def fit(q, v: Leaves, h: Leaves, mu, count, decay):
        del count
        return [_fit_leaf(qi, vi, hi, mu, decay) for qi, vi, hi in zip(q, v, h)]

    def apply(q, g: Leaves) -> Leaves:
        return [_apply_leaf(qi, gi) for qi, gi in zip(q, g)]

    return Form(init, rescale, fit, apply)


def scale_by_psgd_kron(
    preconditioner_learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    mode: Mode = "whitening",
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    update_every: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Precondition each tensor with P = QᵀQ, Q a Kronecker product of one factor an axis.

    .. math:: \min_Q\; \mathbb E[h^\top P h + v^\top P^{-1} v], \qquad u = P g

    `whitening`: h is the gradient and v random, so that P → (E ggᵀ)^{−1/2} and P g has entries of
    size 1, like Adam's. `newton`: h = Hv, so that P → H⁻¹ for H ≻ 0,
    exactly, and near |H|⁻¹ at a saddle. On matrices with two factors this is
    the affine group's preconditioner (append a bias to its matrix as one more row).

    Memory: m² + n² floats for an m × n matrix. Chain it:
    `optax.chain(scale_by_psgd_kron(), optax.add_decayed_weights(λ),
    optax.scale_by_learning_rate(η))`, with `optax.ema(0.9)` before it for momentum and
    `optax.clip_by_block_rms(1.0)` after it against spikes.

    Stated results: a tensor whose h is all zero, NaN or inf leaves its factors as they are (P g is
    then 0, NaN or inf). Under `jit` tensors may be sharded; `shard_map` is not supported, since the
    factors need whole axes.

    Args:
      preconditioner_learning_rate: μ in (0, 1), a number or a schedule of the step. In whitening
        mode Q keeps a noise of the order of √μ: let it fall for an exact fit.
      mode: `whitening` or `newton`; the latter needs `update(..., vector=v, hvp=Hv)`, see
        `gradient_and_hvp`, and under `optax.masked` or `optax.partition` their
        `mask_compatible_extra_args=True`.
      max_size_triangular: axes longer than this get a diagonal factor.
      min_ndim_triangular: tensors of fewer axes get diagonal factors; 1 makes vectors dense.
      update_every: fit Q every so many steps ≥ 1.
      seed: of the random v in whitening mode.

    Returns:
      A transformation with state `PsgdState`; `preconditioner` is a list of a
      `KronPreconditioner` a leaf. P g points uphill as g does: the learning rate negates it.

    Raises:
      ValueError: a number out of its range, an unknown mode, a leaf that is not floating point, or
        `vector` or `hvp` missing in newton mode.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sibert_jax.optim import gradient_and_hvp, scale_by_psgd_kron
      >>> loss = lambda x: 0.5 * (x[0] ** 2 + 100.0 * x[1] ** 2)
      >>> tx = optax.chain(scale_by_psgd_kron(0.5, mode="newton"), optax.scale(-0.5))
      >>> x = jnp.ones(2)
      >>> state, update = tx.init(x), jax.jit(tx.update)
      >>> for step in range(40):
      ...     g, v, hv = gradient_and_hvp(loss, x, jax.random.key(step))
      ...     updates, state = update(g, state, x, vector=v, hvp=hv)
      ...     x = x + updates
      >>> bool(loss(x) < 1e-6)
      True

    References:
      Pooladzandi, Li, *Curvature-Informed SGD via General Purpose Lie-Group Preconditioners*,
      https://arxiv.org/abs/2402.04553, sections 3 and 4 (criterion, Lie groups); Li,
      *Preconditioner on Matrix Lie Group for SGD*, https://arxiv.org/abs/1809.10232 (Kronecker).
      The bound L and the choice of the first scale are ours.
    """
    check_scalar("max_size_triangular", max_size_triangular)
    check_scalar("min_ndim_triangular", min_ndim_triangular)
    form = _kron_form(max_size_triangular, min_ndim_triangular)
    return scale_by_psgd(form, preconditioner_learning_rate, mode, update_every, seed)
