"""One fitting step of one tensor's Kronecker factors, in two update forms.

Multiplying along axis i by a factor is `along`; T₍ᵢ₎ is the unfolding of T along axis i. With
y = P h and N the number of entries:

`inverse_free`, dQ = Q^½ E Q^{3/2}, which needs no inverse and keeps Q nearly symmetric:

    Qᵢ ← R(Qᵢ − μ/L · (Y₍ᵢ₎Y₍ᵢ₎ᵀ − V₍ᵢ₎V₍ᵢ₎ᵀ) Qᵢ),    L ≥ ‖Y₍ᵢ₎Y₍ᵢ₎ᵀ + V₍ᵢ₎V₍ᵢ₎ᵀ‖

where whitening uses the mean over v, V₍ᵢ₎V₍ᵢ₎ᵀ = (N/nᵢ)·I, and R rotates Q towards a symmetric
matrix. A perturbation between the eigenvectors k and l of Q decays at a rate that grows with
q_k/q_l, so stability also requires μ/L·‖QY‖‖Q⁻¹Y‖ < 1; L is raised to ensure it.

`triangular`, dQ = E Q, on the group of triangular matrices: with a = Q h, b = Q⁻ᵀv

    Qᵢ ← Qᵢ − μ/L · triu(A₍ᵢ₎A₍ᵢ₎ᵀ − B₍ᵢ₎B₍ᵢ₎ᵀ) Qᵢ,    L ≥ ‖A₍ᵢ₎A₍ᵢ₎ᵀ + B₍ᵢ₎B₍ᵢ₎ᵀ‖.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from sibert_jax.optim.psgd.pairs import (
    Mode,
    first_scale,
    kept_unless,
    positive,
    running_bound,
    scale_free,
    shrinkage,
)

UpdateForm = Literal["inverse_free", "triangular"]
Factors = tuple[jax.Array, ...]

_EXACT = jax.lax.Precision.HIGHEST
_STABLE = 0.3  # μ/L·‖QY‖‖Q⁻¹Y‖: 1 suffices for mean pairs, single pairs need less; empirical
_LARGEST_TURN = 1 / 8  # keeps the second-order rotation orthogonal to 1e-4


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_EXACT)


def _along(factor: jax.Array, tensor: jax.Array, axis: int) -> jax.Array:
    """Multiply by the factor (a matrix, or a vector as a diagonal) along one axis."""
    if factor.ndim == 1:
        return tensor * factor.reshape([-1 if i == axis else 1 for i in range(tensor.ndim)])
    product = jnp.tensordot(factor, tensor, axes=(1, axis), precision=_EXACT)
    return jnp.moveaxis(product, 0, axis)


def _square_along(factor: jax.Array, tensor: jax.Array, axis: int) -> jax.Array:
    """Multiply by QᵀQ along one axis."""
    transposed = factor if factor.ndim == 1 else factor.T
    return _along(transposed, _along(factor, tensor, axis), axis)


def _solve_transposed_along(factor: jax.Array, tensor: jax.Array, axis: int) -> jax.Array:
    """Multiply by the inverse of the triangular factor's transpose along one axis."""
    if factor.ndim == 1:
        return _along(1 / factor, tensor, axis)
    front = jnp.moveaxis(tensor, axis, 0)
    solved = jax.scipy.linalg.solve_triangular(
        factor, front.reshape(front.shape[0], -1), trans=1, lower=False
    )
    return jnp.moveaxis(solved.reshape(front.shape), 0, axis)


def _unfolded(tensor: jax.Array, axis: int) -> jax.Array:
    return jnp.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)


def _second_moment(tensor: jax.Array, axis: int, factor: jax.Array) -> jax.Array:
    """Return T₍ᵢ₎T₍ᵢ₎ᵀ, or its diagonal for a diagonal factor."""
    unfolded = _unfolded(tensor, axis)
    return (
        jnp.sum(jnp.square(unfolded), axis=1) if factor.ndim == 1 else _matmul(unfolded, unfolded.T)
    )


def _spectral_norm(times: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
    """Estimate, from below, the spectral norm of the normal matrix that `times` multiplies rows by.

    Power iteration on eight rows, none a multiple of another. The estimate is exact after one round
    if one eigenvalue dominates, and within a few tenths for a flat spectrum.
    """
    size = like.shape[0]
    rows = jnp.cos(jnp.outer(jnp.arange(1.0, 9.0), jnp.arange(1.0, size + 1.0)) * 1.7)
    rows = times(rows.astype(like.dtype))

    def round_(_, rows):
        return times(rows / positive(jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))))

    rows = jax.lax.fori_loop(0, 4, round_, rows)
    return jnp.sqrt(jnp.max(jnp.sum(jnp.square(rows), axis=1)))


def _norm(moment: jax.Array) -> jax.Array:
    """Estimate the spectral norm of a second moment (or diagonal)."""
    largest = jnp.max(jnp.abs(moment))
    if moment.ndim == 1:
        return largest
    unit = moment / positive(largest)
    return largest * _spectral_norm(lambda rows: _matmul(rows, unit), unit)


def _stiffness(*tensors: jax.Array, axis: int) -> jax.Array:
    """Estimate the product of the spectral norms of the tensors' unfoldings."""
    unfolded = jnp.stack([_unfolded(tensor, axis) for tensor in tensors])

    def norm(x: jax.Array) -> jax.Array:
        largest = jnp.max(jnp.abs(x))
        unit = x / positive(largest)
        squared = _spectral_norm(lambda rows: _matmul(_matmul(rows, unit), unit.T), unit)
        return largest * jnp.sqrt(squared)

    return jnp.prod(jax.vmap(norm)(unfolded))


def _turned(q: jax.Array) -> jax.Array:
    """Rotate Q towards the symmetric matrix with the same QᵀQ: one Procrustes step.

    U = exp(aR) to second order, with R skew along Qᵀ − Q; a maximizes tr(UQ) along R.
    """
    skew = q.T - q
    skew = skew / positive(_norm(skew))
    rq = _matmul(skew, q)
    rrq = _matmul(skew, rq)
    slope, curvature = jnp.trace(rq), jnp.trace(rrq)
    best = jnp.minimum(-slope / jnp.where(curvature < 0, curvature, -1.0), _LARGEST_TURN)
    a = jnp.where(curvature < 0, best, _LARGEST_TURN)
    return q + a * (rq + 0.5 * a * rrq)


def apply_factors(factors: Factors, tensor: jax.Array) -> jax.Array:
    """Return P times a tensor with one axis per factor."""
    for axis, q in enumerate(factors):
        tensor = _square_along(q, tensor, axis)
    return tensor


def _inverse_free(factors: Factors, bounds: Factors, v, h, size, mu, mode: Mode):
    """Take one step of the inverse-free form; v = None stands for the mean over v ~ N(0, I)."""
    y = size * apply_factors(factors, h)
    new_factors, new_bounds = [], []
    for axis, (q, previous) in enumerate(zip(factors, bounds)):
        yy = _second_moment(y, axis, q)
        if v is None:
            average = jnp.full(q.shape[:1], h.size // h.shape[axis], h.dtype)
            vv = average if q.ndim == 1 else jnp.diag(average)
        else:
            vv = _second_moment(v, axis, q)
        sample = _norm(yy + vv)
        if q.ndim == 2:
            half = size * h  # becomes Q⁻ᵀ y along this axis
            for other, factor in enumerate(factors):
                half = (_along if other == axis else _square_along)(factor, half, other)
            stiffness = _stiffness(_along(q, y, axis), half, axis=axis)
            sample = jnp.maximum(sample, mu / _STABLE * stiffness)
        bound = running_bound(previous, sample, mode)
        step = mu / positive(bound)
        if q.ndim == 1:
            new_factors.append(q - step * (yy - vv) * q)
        else:
            new_factors.append(_turned(q - step * _matmul(yy - vv, q)))
        new_bounds.append(bound)
    return new_factors, new_bounds


def _triangular(factors: Factors, bounds: Factors, v, h, size, mu, mode: Mode):
    a, b = h, v
    for axis, factor in enumerate(factors):
        a, b = _along(factor, a, axis), _solve_transposed_along(factor, b, axis)
    a = size * a
    new_factors, new_bounds = [], []
    for axis, (q, previous) in enumerate(zip(factors, bounds)):
        aa, bb = _second_moment(a, axis, q), _second_moment(b, axis, q)
        bound = running_bound(previous, _norm(aa + bb), mode)
        change = (aa - bb) * q if q.ndim == 1 else _matmul(jnp.triu(aa - bb), q)
        new_factors.append(q - mu / positive(bound) * change)
        new_bounds.append(bound)
    return new_factors, new_bounds


def _balanced(factors: list[jax.Array]) -> Factors:
    """Give all factors the same largest entry; only their product counts."""
    largest = [positive(jnp.max(jnp.abs(q))) for q in factors]
    logarithms = [jnp.log(x) for x in largest]
    mean = sum(logarithms) / len(factors)
    return tuple(q * jnp.exp(mean - x) for q, x in zip(factors, logarithms))


def fit_factors(
    factors: Factors,
    bounds: Factors,
    v: jax.Array | None,
    h: jax.Array,
    noise: jax.Array,
    mu: jax.Array,
    *,
    mode: Mode,
    update_form: UpdateForm,
) -> tuple[Factors, Factors]:
    """Return factors and bounds after one pair (v, h) of tensors with one axis per factor.

    Bounds of zero mean that no pair was usable yet: the first usable one sets the scale of Q.
    """
    pair = scale_free(None if v is None else [v], [h], [noise], mode)
    (h,), v = pair.h, None if pair.v is None else pair.v[0]
    scale = jnp.where(bounds[0] > 0, 1.0, first_scale(h, pair.size)) ** (1 / len(factors))
    scaled = tuple(q * scale.astype(q.dtype) for q in factors)
    shrink = shrinkage(apply_factors(scaled, h), pair.size) ** (1 / len(factors))
    scaled = tuple(q * shrink for q in scaled)
    # L bounds the curvature of one factor; three or more moving together would overshoot.
    mu = mu.astype(h.dtype) / max(1, len(factors) - 1)
    if update_form == "inverse_free":
        new = _inverse_free(scaled, bounds, v, h, pair.size, mu, mode)
    else:
        new = _triangular(scaled, bounds, noise if v is None else v, h, pair.size, mu, mode)
    new_factors, new_bounds = new
    return kept_unless(pair.usable, (_balanced(new_factors), tuple(new_bounds)), (factors, bounds))
