"""PSGD on the vector of all parameters, with a diagonal and a low-rank correction.

Q = (I + UVᵀ)·diag(d) with U, V of shape N × r. With a = Qh and b = Q⁻ᵀv, updating U with V fixed, V
with U fixed, or d stays within a group, where the criterion's gradients are

    ∇U = (a aᵀ − b bᵀ)V,  U ← U − μ/L · ∇U (I + VᵀU)
    ∇V = (a aᵀ − b bᵀ)U,  V ← V − μ/L · (I + VUᵀ) ∇V
    ∇d = h∘Ph − v∘P⁻¹v,   d ← d − μ/L · d∘∇d.

U and V are updated alternately. Only r × r matrices are inverted (Woodbury). The vector is never
built: all arrays keep the shapes of the parameters.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.psgd.pairs import (
    Leaves,
    Mode,
    by_leaf,
    fit_dtype,
    kept_unless,
    normal_like,
    positive,
    root_mean_square,
    running_bound,
    scale_free,
    shrinkage,
    times_unit,
    widest_dtype,
)
from sibert_jax.optim.psgd.transform import Form, check_count, scale_by_psgd

_EXACT = jax.lax.Precision.HIGHEST

# A pair's own L bounds U and d separately, not jointly; that of a few pairs keeps P stable.
_NEWTON_DECAY = 0.8


class LowRankPreconditioner(NamedTuple):
    """Q = (I + UVᵀ)·diag(d): trees in the structure of the parameters.

    Attributes:
      u: an array of shape (*leaf.shape, r) per leaf.
      v: like u.
      d: an array of the leaf's shape per leaf.
      d_bounds: a scalar per leaf: the curvature bound L of d, zero until the leaf's first usable
        gradient.
      bounds: (2,), the curvature bounds L of U and V.
    """

    u: Any
    v: Any
    d: Any
    d_bounds: Any
    bounds: jax.Array


def _inner(factor: Leaves, x: Leaves) -> jax.Array:
    """Return factorᵀ x, (r,), or factorᵀ X, (r, r), summed over the leaves."""
    parts = []
    for f, y in zip(factor, x):
        axes = list(range(f.ndim - 1))
        parts.append(jnp.tensordot(f, y, axes=(axes, axes), precision=_EXACT))
    dtype = widest_dtype(parts)
    return functools.reduce(jnp.add, [part.astype(dtype) for part in parts])


def _outer(factor: Leaves, small: jax.Array) -> Leaves:
    """Return factor · small for a small vector (r,) or matrix (r, r)."""
    return [jnp.matmul(f, small.astype(f.dtype), precision=_EXACT) for f in factor]


def _add(x: Leaves, y: Leaves) -> Leaves:
    return [a + b for a, b in zip(x, y)]


def _subtract(x: Leaves, y: Leaves) -> Leaves:
    return [a - b for a, b in zip(x, y)]


def _times(x: Leaves, y: Leaves) -> Leaves:
    return [a * b for a, b in zip(x, y)]


def _norm(x: Leaves) -> jax.Array:
    return root_mean_square(x) * float(sum(y.size for y in x)) ** 0.5


def _core(q: LowRankPreconditioner) -> jax.Array:
    core = _inner(q.v, q.u)
    return jnp.eye(core.shape[0], dtype=core.dtype) + core


def _q_times(q: LowRankPreconditioner, x: Leaves) -> Leaves:
    x = _times(q.d, x)
    return _add(x, _outer(q.u, _inner(q.v, x)))


def _q_transposed_times(q: LowRankPreconditioner, x: Leaves) -> Leaves:
    return _times(q.d, _add(x, _outer(q.v, _inner(q.u, x))))


def _solve_transposed(q: LowRankPreconditioner, x: Leaves) -> Leaves:
    x = [a / b for a, b in zip(x, q.d)]
    return _subtract(x, _outer(q.v, jnp.linalg.solve(_core(q).T, _inner(q.u, x))))


def _solve(q: LowRankPreconditioner, x: Leaves) -> Leaves:
    x = _subtract(x, _outer(q.u, jnp.linalg.solve(_core(q), _inner(q.v, x))))
    return [a / b for a, b in zip(x, q.d)]


def _balanced(q: LowRankPreconditioner) -> LowRankPreconditioner:
    """Move UᵀU and VᵀV towards each other, U ← UT and V ← VT⁻ᵀ; only UVᵀ counts.

    Equal norms do not suffice: columns of U and V could grow while they cancel in UVᵀ, until
    I + VᵀU is numerically singular.
    """
    uu, vv = _inner(q.u, q.u), _inner(q.v, q.v)
    ratio = jnp.sqrt(jnp.trace(vv) / jnp.trace(uu))  # norm of V over norm of U
    uu, vv = uu * ratio, vv / ratio
    turn = 0.1 * (uu - vv) / (jnp.trace(uu) + jnp.trace(vv))
    identity = jnp.eye(turn.shape[0], dtype=turn.dtype)
    second = 0.5 * jnp.matmul(turn, turn, precision=_EXACT)
    u = _outer(q.u, jnp.sqrt(ratio) * (identity - turn + second))
    v = _outer(q.v, (identity + turn + second) / jnp.sqrt(ratio))
    return q._replace(u=u, v=v)


def _moved(
    q: LowRankPreconditioner, v: Leaves, h: Leaves, size, mu, turn, mode: Mode
) -> LowRankPreconditioner:
    h = [size.astype(x.dtype) * x for x in h]
    a, b = _q_times(q, h), _solve_transposed(q, v)
    hph, vpv = _times(h, _q_transposed_times(q, a)), _times(v, _solve(q, b))
    d, d_bounds = [], []
    for di, plus, minus, previous in zip(q.d, hph, vpv, q.d_bounds):
        bound = running_bound(
            previous, jnp.max(jnp.abs(plus) + jnp.abs(minus)), mode, _NEWTON_DECAY
        )
        d.append(di - mu.astype(di.dtype) / positive(bound) * (plus - minus) * di)
        d_bounds.append(bound)

    def gradient(other: Leaves) -> tuple[Leaves, jax.Array]:
        oa, ob = _inner(other, a), _inner(other, b)
        bound = _norm(a) * _norm(_outer(other, oa)) + _norm(b) * _norm(_outer(other, ob))
        outer = [
            jnp.tensordot(x, oa.astype(x.dtype), axes=0)
            - jnp.tensordot(y, ob.astype(y.dtype), axes=0)
            for x, y in zip(a, b)
        ]
        return outer, bound

    grad_u, bound_u = gradient(q.v)
    grad_v, bound_v = gradient(q.u)
    bounds = running_bound(
        q.bounds, jnp.stack([bound_u, bound_v]).astype(q.bounds.dtype), mode, _NEWTON_DECAY
    )
    step_u, step_v = mu.astype(bounds.dtype) / positive(bounds)

    def move_u(q):
        return q._replace(u=_subtract(q.u, _outer(grad_u, step_u * _core(q))))

    def move_v(q):
        change = _add(grad_v, _outer(q.v, _inner(q.u, grad_v)))
        return q._replace(v=[x - step_v.astype(x.dtype) * y for x, y in zip(q.v, change)])

    moved = jax.lax.cond(turn, move_u, move_v, q)
    return moved._replace(d=d, d_bounds=d_bounds, bounds=bounds)


def _low_rank_form(mode: Mode, rank: int, seed: int) -> Form:
    def init(params: optax.Params) -> LowRankPreconditioner:
        leaves, treedef = jax.tree.flatten(params)
        dtypes = [fit_dtype(leaf) for leaf in leaves]
        size = max(1, sum(jnp.size(leaf) for leaf in leaves))
        # Zero U and V would have zero gradients; small random ones break the tie.
        spread = 0.1 / (size * rank) ** 0.5

        def factor(key) -> Any:
            keys = jax.random.split(key, max(1, len(leaves)))
            return treedef.unflatten(
                spread * jax.random.normal(k, (*jnp.shape(leaf), rank), dtype)
                for k, leaf, dtype in zip(keys, leaves, dtypes)
            )

        u_key, v_key = jax.random.split(jax.random.key(seed))
        return LowRankPreconditioner(
            u=factor(u_key),
            v=factor(v_key),
            d=treedef.unflatten(jnp.ones(jnp.shape(x), t) for x, t in zip(leaves, dtypes)),
            d_bounds=treedef.unflatten(jnp.zeros([], t) for t in dtypes),
            bounds=jnp.zeros(2, widest_dtype(leaves)),
        )

    def fit(q: LowRankPreconditioner, v: Leaves | None, h: Leaves, mu, key):
        noise_key, turn_key = jax.random.split(key)
        noise = normal_like(noise_key, h)
        pair = scale_free(v, h, noise, mode)
        v, alive, scales = by_leaf(pair, noise, q.d_bounds)
        # A leaf with tiny gradients gets a large d, which would amplify what U and V carry over
        # from other leaves: its initial rows of U and V are scaled down by as much.
        least = functools.reduce(jnp.minimum, [x.astype(pair.size.dtype) for x in scales])
        shares = [
            jnp.where(bound > 0, 1, jnp.minimum(1, least.astype(x.dtype) / x))
            for bound, x in zip(q.d_bounds, scales)
        ]
        scaled = _balanced(
            q._replace(u=_times(q.u, shares), v=_times(q.v, shares), d=_times(q.d, scales))
        )
        reached = _q_transposed_times(scaled, _q_times(scaled, pair.h))
        shrinks = [shrinkage(x, pair.size) for x in reached]
        scaled = scaled._replace(d=_times(scaled.d, shrinks))
        moved = _moved(scaled, v, pair.h, pair.size, mu, jax.random.bernoulli(turn_key), mode)
        d_bounds = [
            jnp.where(on, new, old) for on, new, old in zip(alive, moved.d_bounds, q.d_bounds)
        ]
        return kept_unless(pair.usable, moved._replace(d_bounds=d_bounds), q)

    def apply(q: LowRankPreconditioner, g: Leaves) -> Leaves:
        return times_unit(lambda x: _q_transposed_times(q, _q_times(q, x)), g)

    return Form(init, fit, apply, shared=("bounds",))


def scale_by_psgd_low_rank(
    preconditioner_learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    rank: int = 10,
    mode: Mode = "whitening",
    update_every: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Precondition all parameters at once with P = QᵀQ, Q = (I + UVᵀ)·diag(d).

    .. math:: \min_{U,V,d}\; \mathbb E[h^\top P h + v^\top P^{-1} v], \qquad u = P g

    Experimental: stays finite at every μ, but in newton mode P approaches H⁻¹ only for Hessians of
    this form with condition numbers near 10, at μ up to 0.5. From 100 on the fit stalls: P H keeps
    a condition number of 2 to 50, and of hundreds at μ near 1. Prefer `scale_by_psgd_kron`.

    Captures correlations between any two parameters, along r directions. Memory: 2r + 1 floats per
    parameter. Modes, chaining, zeros and NaN are as in `scale_by_psgd_kron`, with the whole
    gradient in place of a tensor.

    Args:
      preconditioner_learning_rate: μ in (0, 1), a number or a schedule; at most 0.5 where H is
        ill-conditioned.
      rank: r, an integer ≥ 1.
      mode: `whitening` or `newton`; the latter needs `update(..., vector=v, hvp=Hv)`.
      update_every: ≥ 1, steps between two fits of Q.
      seed: random seed of the initial U and V, of the noise in h, and of v in whitening mode.

    Returns:
      A transformation with state `PsgdState`; `preconditioner` is a `LowRankPreconditioner`.

    Raises:
      ValueError: a number out of its range, an unknown mode, a leaf that is not floating point, or
        `vector` or `hvp` missing in newton mode.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sibert_jax.optim import gradient_and_hvp, scale_by_psgd_low_rank
      >>> loss = lambda x: 0.5 * (jnp.sum(x**2) + jnp.sum(x) ** 2)  # identity + rank 1
      >>> tx = optax.chain(scale_by_psgd_low_rank(0.5, rank=1, mode="newton"), optax.scale(-0.5))
      >>> x = jnp.arange(4.0)
      >>> state, update = tx.init(x), jax.jit(tx.update)
      >>> for step in range(150):
      ...     g, v, hv = gradient_and_hvp(loss, x, jax.random.key(step))
      ...     updates, state = update(g, state, x, vector=v, hvp=hv)
      ...     x = x + updates
      >>> bool(loss(x) < 1e-6)
      True

    References:
      Pooladzandi, Li, https://arxiv.org/abs/2402.04553, section 4 (low-rank approximation).
    """
    rank = check_count("rank", rank)
    form = _low_rank_form(mode, rank, seed)
    return scale_by_psgd(form, preconditioner_learning_rate, mode, update_every, seed)
