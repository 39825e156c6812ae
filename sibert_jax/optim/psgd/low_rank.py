"""PSGD with a diagonal plus a low-rank correction of all parameters as one vector.

Q = (I + UVᵀ)·diag(d) with U, V of N × r. With a = Qh and b = Q⁻ᵀv, moving U with V fixed, V with U
fixed, and d each stays within a group, where the criterion's gradients are

    ∇U = (a aᵀ − b bᵀ)V,  U ← U − μ/L · ∇U (I + VᵀU)
    ∇V = (a aᵀ − b bᵀ)U,  V ← V − μ/L · (I + VUᵀ) ∇V
    ∇d = h∘Ph − v∘P⁻¹v,   d ← d − μ/L · d∘∇d.

U and V take turns. Inverses are those of r × r matrices (Woodbury).
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
    flat,
    running_bound,
    scale_by_psgd,
    unflat,
    usable,
)
from sibert_jax.optim.scalars import check_scalar


class LowRankPreconditioner(NamedTuple):
    """Q = (I + UVᵀ)·diag(d).

    Attributes:
      u: float32, N × r.
      v: float32, N × r.
      d: float32, N.
      bounds: float32, (3,): the curvature bounds L of U, V and d.
    """

    u: jax.Array
    v: jax.Array
    d: jax.Array
    bounds: jax.Array


def _core(q: LowRankPreconditioner) -> jax.Array:
    return jnp.eye(q.u.shape[1], dtype=jnp.float32) + q.v.T @ q.u


def _times(q: LowRankPreconditioner, x: jax.Array) -> jax.Array:
    x = q.d * x
    return x + q.u @ (q.v.T @ x)


def _transposed_times(q: LowRankPreconditioner, x: jax.Array) -> jax.Array:
    return q.d * (x + q.v @ (q.u.T @ x))


def _solve_transposed(q: LowRankPreconditioner, x: jax.Array) -> jax.Array:
    x = x / q.d
    return x - q.v @ jnp.linalg.solve(_core(q).T, q.u.T @ x)


def _solve(q: LowRankPreconditioner, x: jax.Array) -> jax.Array:
    return (x - q.u @ jnp.linalg.solve(_core(q), q.v.T @ x)) / q.d


def _gradient_and_bound(other: jax.Array, a: jax.Array, b: jax.Array):
    """Return (∇, ‖∇·otherᵀ‖'s bound) for the one of U, V whose partner is `other`."""
    oa, ob = other.T @ a, other.T @ b
    norm = jnp.linalg.norm
    bound = norm(a) * norm(other @ oa) + norm(b) * norm(other @ ob)
    return jnp.outer(a, oa) - jnp.outer(b, ob), bound


def _balanced(q: LowRankPreconditioner) -> LowRankPreconditioner:
    """Give U and V one norm. Only UVᵀ counts, and the ratio would drift without limit."""
    u_norm, v_norm = jnp.linalg.norm(q.u), jnp.linalg.norm(q.v)
    scale = jnp.sqrt(v_norm / u_norm)
    return q._replace(u=q.u * scale, v=q.v / scale)


def _fit_vector(q: LowRankPreconditioner, v, h, mu, count, decay) -> LowRankPreconditioner:
    a, b = _times(q, h), _solve_transposed(q, v)
    ph, pv = _transposed_times(q, a), _solve(q, b)
    bound_d = jnp.max(jnp.abs(h * ph) + jnp.abs(v * pv))
    grad_u, bound_u = _gradient_and_bound(q.v, a, b)
    grad_v, bound_v = _gradient_and_bound(q.u, a, b)
    bounds = running_bound(q.bounds, jnp.stack([bound_u, bound_v, bound_d]), decay)
    step_u, step_v, step_d = mu / jnp.where(bounds > 0, bounds, 1.0)
    moved = jax.lax.cond(
        count % 2 == 0,
        lambda q: q._replace(u=q.u - step_u * grad_u @ _core(q)),
        lambda q: q._replace(v=q.v - step_v * (grad_v + q.v @ (q.u.T @ grad_v))),
        q,
    )
    moved = _balanced(moved._replace(d=q.d - step_d * q.d * (h * ph - v * pv), bounds=bounds))
    keep = usable(h)
    return jax.tree.map(lambda new, old: jnp.where(keep, new, old), moved, q)


def _low_rank_form(rank: int, seed: int) -> Form:
    def init(leaves: Leaves) -> LowRankPreconditioner:
        size = sum(leaf.size for leaf in leaves)
        # Zero U and V would have zero gradients; small random ones break the tie.
        shape, spread = (size, rank), 0.1 / (size * rank) ** 0.5
        u_key, v_key = jax.random.split(jax.random.key(seed))
        return LowRankPreconditioner(
            u=spread * jax.random.normal(u_key, shape, jnp.float32),
            v=spread * jax.random.normal(v_key, shape, jnp.float32),
            d=jnp.ones(size, jnp.float32),
            bounds=jnp.zeros(3, jnp.float32),
        )

    def rescale(q, v: Leaves, h: Leaves):
        return q._replace(d=q.d * best_scalar(flat(v), flat(h)))

    def fit(q, v: Leaves, h: Leaves, mu, count, decay):
        # The pair's own L bounds U and d apart, not together; one of five fits keeps P in place.
        return _fit_vector(q, flat(v), flat(h), mu, count, max(decay, 0.8))

    def apply(q, g: Leaves) -> Leaves:
        return unflat(_transposed_times(q, _times(q, flat(g))), g)

    return Form(init, rescale, fit, apply)


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

    Sees correlations between any two parameters, r directions of them. Memory: (2r + 1) floats a
    parameter. Modes, chaining, zeros and NaN as in `scale_by_psgd_kron`, with the whole gradient in
    place of a tensor.

    Args:
      preconditioner_learning_rate: μ in (0, 1), a number or a schedule of the step.
      rank: r ≥ 1.
      mode: `whitening` or `newton`; the latter needs `update(..., vector=v, hvp=Hv)`.
      update_every: fit Q every so many steps ≥ 1.
      seed: of the initial U, V and of the random v in whitening mode.

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
    check_scalar("rank", rank, minimum=1)
    form = _low_rank_form(rank, seed)
    return scale_by_psgd(form, preconditioner_learning_rate, mode, update_every, seed)
