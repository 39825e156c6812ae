"""PSGD against problems whose best preconditioner is known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.optim import (
    scale_by_psgd_kron,
    scale_by_psgd_low_rank,
    scale_by_psgd_matrix_free,
)

DENSE = functools.partial(scale_by_psgd_kron, min_ndim_triangular=1)
TRIANGULAR = functools.partial(scale_by_psgd_kron, update_form="triangular")
DIAGONAL = functools.partial(scale_by_psgd_matrix_free, shape="diagonal")


def rank(r):
    return functools.partial(scale_by_psgd_low_rank, rank=r)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def spd(seed, size, smallest=0.3):
    a = np.random.default_rng(seed).normal(size=(size, size))
    return a @ a.T / size + smallest * np.eye(size)


def of_condition(seed, size, condition):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return rotation @ np.diag(np.geomspace(condition**-0.5, condition**0.5, size)) @ rotation.T


def x_shaped(size):
    h = np.diag(np.linspace(1, 4, size))
    for i in range(size // 2):
        h[i, size - 1 - i] = h[size - 1 - i, i] = 0.8
    return h


def diagonal_plus_rank_one(size):
    d = np.diag(np.linspace(0.5, 2, size))
    return d @ (np.eye(size) + 3 * np.ones((size, size)) / size) @ d


def fitted(tx, factor, steps, shape, newton):
    """Return P as a matrix after pairs (v, Hv), or gradients of covariance H·Hᵀ."""
    size, update = len(factor), jax.jit(tx.update)
    v = np.random.default_rng(1).normal(size=(steps, size)).astype(np.float32)
    h = v @ np.float32(factor).T
    zeros = np.zeros(shape, np.float32)

    def step(g, state, v, h):
        pair = {"vector": v.reshape(shape), "hvp": h.reshape(shape)} if newton else {}
        return update(g.reshape(shape), state, None, **pair)

    state = tx.init(jnp.asarray(zeros))
    for t in range(steps):
        _, state = step(zeros if newton else h[t], state, v[t], h[t])
    rows = [step(e, state, zeros, zeros)[0] for e in np.eye(size, dtype=np.float32)]
    return np.stack(rows).reshape(size, size).T


KRON = np.kron(spd(0, 3), spd(1, 4))


@pytest.mark.parametrize(
    ("make", "hessian", "shape", "steps"),
    [
        slow(rank(1), diagonal_plus_rank_one(6), (6,), 2500),
        (scale_by_psgd_matrix_free, x_shaped(3), (3,), 700),
        slow(DENSE, spd(0, 8), (8,), 1000),
        slow(scale_by_psgd_kron, KRON, (3, 4), 1000),
        slow(TRIANGULAR, KRON, (3, 4), 2500),
        slow(scale_by_psgd_kron, np.kron(np.eye(2), KRON), (2, 3, 4), 1000),
        slow(DIAGONAL, np.diag([1.0, 3.0, 0.5]), (3,), 2500),
        slow(scale_by_psgd_matrix_free, x_shaped(7), (7,), 2500),
    ],
)  # fmt: skip
def test_newton_mode_finds_the_inverse_hessian(make, hessian, shape, steps):
    """And stays there, with a step size close to the largest allowed."""
    p = fitted(make(0.9, mode="newton"), hessian, steps, shape, newton=True)
    np.testing.assert_allclose(p @ hessian, np.eye(len(hessian)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_inverse_free_update_is_stable_at_every_rate(rate):
    """As published it would need rates below about 2N/√condition; the bound sees to that."""
    hessian = of_condition(0, 6, 1e3)
    p = fitted(DENSE(rate, mode="newton"), hessian, 4000, (6,), newton=True)
    assert np.linalg.norm(p @ hessian - np.eye(len(hessian))) < 2e-3


def published_step(q1, q2, v, h, rate):
    """Q ← Q − μ(Y Yᵀ − V Vᵀ)Q/‖Y Yᵀ + V Vᵀ‖, Y = Ph, in both factors, then Q turned symmetric."""

    def new(q, y, v):
        change = rate * (y @ y.T - v @ v.T) / np.linalg.norm(y @ y.T + v @ v.T, 2)
        q = q - change @ q
        r = (q.T - q) / (np.linalg.norm(q.T - q, 2) or 1)
        slope, curvature = np.trace(r @ q), np.trace(r @ r @ q)
        a = min(-slope / curvature, 1 / 8) if curvature < 0 else 1 / 8
        return q + a * r @ q + 0.5 * a**2 * r @ r @ q

    y = q1.T @ q1 @ h @ q2.T @ q2
    return new(q1, y, v), new(q2, y.T, v.T)


def test_inverse_free_step_is_the_published_one():
    """Within what estimating a spectral norm by power iteration costs."""
    rng = np.random.default_rng(0)
    hessian = np.kron(spd(0, 4), spd(1, 3))
    q1, q2 = np.eye(4), np.eye(3)
    tx = scale_by_psgd_kron(0.1, mode="newton")
    state, update = tx.init(jnp.zeros((4, 3))), jax.jit(tx.update)
    for step in range(10):
        v = rng.normal(size=(4, 3))
        h = (hessian @ v.reshape(-1)).reshape(4, 3)
        if step == 0:
            q1, q2 = (q * (np.linalg.norm(v) / np.linalg.norm(h)) ** 0.25 for q in (q1, q2))
        q1, q2 = published_step(q1, q2, v, h, 0.1)
        pair = {"vector": jnp.asarray(v, jnp.float32), "hvp": jnp.asarray(h, jnp.float32)}
        _, state = update(jnp.zeros((4, 3)), state, None, **pair)
    found = [np.float64(q.T @ q) for q in state.preconditioner.factors]
    expected = np.kron(q1.T @ q1, q2.T @ q2)
    assert np.linalg.norm(np.kron(*found) - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("make", "covariance", "shape", "steps", "tolerance"),
    [
        (scale_by_psgd_matrix_free, np.diag([1.0, 4.0]), (2,), 500, 0.15),
        slow(scale_by_psgd_kron, np.kron(spd(2, 3, 1.0), spd(3, 2, 1.0)), (3, 2), 1500, 0.07),
        slow(DENSE, spd(2, 5, 1.0), (5,), 4000, 0.07),
        slow(scale_by_psgd_matrix_free, x_shaped(5), (5,), 4000, 0.07),
        slow(rank(2), spd(4, 3, 1.0), (3,), 4000, 0.12),  # it converges slowest
    ],
)
def test_whitening_finds_the_inverse_root_of_the_covariance(
    make, covariance, shape, steps, tolerance
):
    # The schedule ends before P is read, which fits nothing.
    tx = make(lambda count: 0.2 * (1 - jnp.minimum(count.astype(jnp.float32) / steps, 1)) ** 2)
    p = fitted(tx, np.linalg.cholesky(covariance), steps, shape, newton=False)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    expected = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
    assert np.linalg.norm(p - expected) < tolerance * np.linalg.norm(expected)
