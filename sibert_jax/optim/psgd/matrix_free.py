"""PSGD with a matrix-free preconditioner: two vectors, one on each diagonal of an X.

F reverses a vector. The matrices Q = diag(a) + diag(b)F form the group induced by the permutations
{identity, reversal}; the diagonal matrices form the one induced by {identity}. With α = Qh and
β = Q⁻ᵀv the criterion's gradient at the identity is diag(e) + diag(f)F, e = α² − β²,
f = α∘Fα − β∘Fβ.
"""

from typing import Any, Literal, NamedTuple

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
    running_bound,
    scale_free,
    shrinkage,
    times_unit,
    widest_dtype,
)
from sibert_jax.optim.psgd.transform import Form, scale_by_psgd

Shape = Literal["x", "diagonal"]


class MatrixFreePreconditioner(NamedTuple):
    """Q = diag(a) + diag(b)F: trees in the structure of the parameters.

    Attributes:
      a: an array of the leaf's shape per leaf.
      b: like a; zero for `diagonal`, and in the middle of an odd N, where the diagonals meet.
      bounds: a scalar per leaf: the curvature bound L, zero until the leaf's first usable gradient.
    """

    a: Any
    b: Any
    bounds: Any


def _flat(leaves: Leaves) -> jax.Array:
    dtype = widest_dtype(leaves)
    return jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])


def _like(vector: jax.Array, leaves: Leaves) -> Leaves:
    """Undo `_flat`."""
    outs, start = [], 0
    for leaf in leaves:
        outs.append(vector[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return outs


def _times(a: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    return a * x + b * x[::-1]


def _transposed_times(a: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    return a * x + (b * x)[::-1]


def _solve_transposed(a: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    """Solve with Qᵀ: 2 × 2 systems, each coupling two mirrored entries."""
    fa, fb = a[::-1], b[::-1]
    return (fa * x - fb * x[::-1]) / (a * fa - b * fb)


def _off_diagonal(shape: Shape, size: int) -> jax.Array:
    """Return 1 where the second diagonal is free, 0 where it is not."""
    positions = jnp.arange(size)
    crossing = positions == size - 1 - positions
    return jnp.where(crossing | (shape == "diagonal"), 0.0, 1.0)


def _matrix_free_form(mode: Mode, shape: Shape) -> Form:
    def init(params: optax.Params) -> MatrixFreePreconditioner:
        def filled(value: float) -> Any:
            return jax.tree.map(lambda x: jnp.full(jnp.shape(x), value, fit_dtype(x)), params)

        bounds = jax.tree.map(lambda x: jnp.zeros([], fit_dtype(x)), params)
        return MatrixFreePreconditioner(filled(1.0), filled(0.0), bounds)

    def moved(q: MatrixFreePreconditioner, scales: Leaves, v: Leaves, h: Leaves, size, mu):
        def scaled(a, b, factors):
            spread = _flat([jnp.broadcast_to(s, x.shape) for s, x in zip(factors, h)])
            return a * spread, b * spread

        a, b = scaled(_flat(q.a), _flat(q.b), scales)
        reached = _like(_transposed_times(a, b, _times(a, b, _flat(h))), h)
        a, b = scaled(a, b, [shrinkage(x, size) for x in reached])
        alpha = size.astype(a.dtype) * _times(a, b, _flat(h))
        beta = _solve_transposed(a, b, _flat(v))
        off_diagonal = _off_diagonal(shape, alpha.size).astype(alpha.dtype)
        e = jnp.square(alpha) - jnp.square(beta)
        aa, bb = off_diagonal * alpha * alpha[::-1], off_diagonal * beta * beta[::-1]
        samples = jnp.square(alpha) + jnp.square(beta) + jnp.abs(aa) + jnp.abs(bb)
        bounds = [
            running_bound(previous, jnp.max(sample), mode)
            for previous, sample in zip(q.bounds, _like(samples, h))
        ]
        steps = [mu.astype(bound.dtype) / positive(bound) for bound in bounds]
        step = _flat([jnp.broadcast_to(s, x.shape) for s, x in zip(steps, h)])
        # f couples leaves, so it uses the step of the leaf with the largest bound.
        e, f = step * e, jnp.min(step) * (aa - bb)
        new_a = a - (e * a + f * b[::-1])
        new_b = b - (e * b + f * a[::-1])
        return MatrixFreePreconditioner(_like(new_a, h), _like(new_b, h), bounds)

    def fit(q: MatrixFreePreconditioner, v: Leaves | None, h: Leaves, mu, key):
        noise = normal_like(key, h)
        pair = scale_free(v, h, noise, mode)
        v, alive, scales = by_leaf(pair, noise, q.bounds)
        new = moved(q, scales, v, pair.h, pair.size, mu)
        bounds = [jnp.where(on, x, old) for on, x, old in zip(alive, new.bounds, q.bounds)]
        return kept_unless(pair.usable, new._replace(bounds=bounds), q)

    def apply(q: MatrixFreePreconditioner, g: Leaves) -> Leaves:
        a, b = _flat(q.a), _flat(q.b)

        def times(x: Leaves) -> Leaves:
            return _like(_transposed_times(a, b, _times(a, b, _flat(x))), x)

        return times_unit(times, g)

    return Form(init, fit, apply)


def scale_by_psgd_matrix_free(
    preconditioner_learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    shape: Shape = "x",
    mode: Mode = "whitening",
    update_every: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Precondition all parameters at once with P = QᵀQ, Q a diagonal or an X of two diagonals.

    .. math:: Q = \operatorname{diag}(a) + \operatorname{diag}(b) F, \qquad
      \min_{a,b}\; \mathbb E[h^\top P h + v^\top P^{-1} v], \qquad u = P g

    The cheapest form: elementwise arithmetic only. Memory: two floats per parameter. The X couples
    each parameter with its mirror image in the vector of all parameters. Modes, chaining, zeros and
    NaN are as in `scale_by_psgd_kron`, with the whole gradient in place of a tensor.

    Args:
      preconditioner_learning_rate: μ in (0, 1), a number or a schedule.
      shape: `x`, or `diagonal` to keep b at zero.
      mode: `whitening` or `newton`; the latter needs `update(..., vector=v, hvp=Hv)`.
      update_every: ≥ 1, steps between two fits of Q.
      seed: random seed of the noise in h, and of v in whitening mode.

    Returns:
      A transformation with state `PsgdState`; `preconditioner` is a `MatrixFreePreconditioner`.

    Raises:
      ValueError: a number out of its range, an unknown mode or shape, a leaf that is not floating
        point, or `vector` or `hvp` missing in newton mode.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from sibert_jax.optim import gradient_and_hvp, scale_by_psgd_matrix_free
      >>> loss = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 10.0, 100.0]) * x**2)
      >>> tx = optax.chain(scale_by_psgd_matrix_free(0.5, mode="newton"), optax.scale(-0.5))
      >>> x = jnp.ones(3)
      >>> state, update = tx.init(x), jax.jit(tx.update)
      >>> for step in range(60):
      ...     g, v, hv = gradient_and_hvp(loss, x, jax.random.key(step))
      ...     updates, state = update(g, state, x, vector=v, hvp=hv)
      ...     x = x + updates
      >>> bool(loss(x) < 1e-6)
      True

    References:
      Pooladzandi, Li, https://arxiv.org/abs/2402.04553, section 4 (matrix-free preconditioners from
      subgroups of the permutation group).
    """
    if shape not in ("x", "diagonal"):
        raise ValueError(f"shape must be 'x' or 'diagonal', found {shape!r}.")
    form = _matrix_free_form(mode, shape)
    return scale_by_psgd(form, preconditioner_learning_rate, mode, update_every, seed)
