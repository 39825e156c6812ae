"""SGD with weight decay on a scale-invariant loss of which every constant is known.

A sample's loss is ½·x̄ᵀAx̄ + s·⟨u, x̄⟩ with x̄ = x/‖x‖, A diagonal, u uniform on the sphere and s of a
given distribution. With ρ = λ_max(A) − λ_min(A):

- the largest norm of the Hessian of the mean loss on the sphere is ρ, of its gradient ρ/2;
- E‖g‖² at ‖x‖ = 1 is ‖∇L‖² + E[s²]·(1 − 1/d), as u has mean 0 and does not depend on x.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sibert_jax.optim import scale_invariant_sgd

DIM = 16
CHUNK = 1000  # steps of one call of the compiled program
SAMPLES = 500_000  # that clipped means are computed from
SECOND_MOMENT = {"constant": 1.0, "lognormal": float(np.exp(2.0)), "t3": 3.0}  # E[s²]


def noise_size(noise: str, normals):
    """s from four independent normals in the last axis, of JAX or NumPy."""
    z = normals[..., 0]
    if noise == "lognormal":
        return (np if isinstance(z, np.ndarray) else jnp).exp(z)
    if noise == "t3":
        return abs(z) / ((normals[..., 1:] ** 2).mean(axis=-1) ** 0.5)
    return abs(z) * 0 + 1


@functools.partial(jax.jit, static_argnames=("noise", "clip"))
def _chunk(noise, clip, eta, lam, spectrum, scale, carry, key):
    tx = scale_invariant_sgd(lambda count: eta, lambda count: lam, clip)

    def loss(x, u, s):
        unit = x / jnp.linalg.norm(x)
        return jnp.sum(spectrum * unit**2) / 2 + s * jnp.vdot(u, unit)

    def one(x, state, normals):
        unit = x / jnp.linalg.norm(x)
        slope = jnp.sum(((spectrum - jnp.sum(spectrum * unit**2)) * unit) ** 2)
        u = normals[:DIM] / jnp.linalg.norm(normals[:DIM])
        grad = jax.grad(loss)(x, u, scale * noise_size(noise, normals[DIM:]))
        updates, state = tx.update(grad, state, x)
        return (optax.apply_updates(x, updates), state), (jnp.sum(x**2), slope)

    def step(carry, normals):
        return jax.vmap(one)(*carry, normals)

    replicas = carry[0].shape[0]
    return jax.lax.scan(step, carry, jax.random.normal(key, (CHUNK, replicas, DIM + 4)))


def simulate(
    noise: str,
    clip: float | None,
    eta: float,
    lam: float,
    norms: np.ndarray,
    steps: int,
    *,
    spread: float = 0.0,
    scale: float = 1.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs replicas of the given initial norms.

    Args:
      noise: distribution of s, a key of SECOND_MOMENT.
      clip: C of the clip; None: no clip.
      eta: η.
      lam: λ.
      norms: ‖x₀‖ of each of R replicas.
      steps: a multiple of CHUNK.
      spread: ρ; the eigenvalues of A are equally spaced from 0 to ρ.
      scale: of s; 0: gradient descent.

    Yields:
      ‖x‖² and ‖∇L(x̄)‖² before each step, (CHUNK, R).
    """
    tx = scale_invariant_sgd(eta, lam, clip)
    start_key, key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(start_key, (norms.size, DIM))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True) * jnp.asarray(norms, jnp.float32)[:, None]
    carry = (x, jax.vmap(tx.init)(x))
    numbers = [jnp.float32(value) for value in (eta, lam)]
    spectrum = jnp.linspace(0, spread, DIM, dtype=jnp.float32)
    for i in range(steps // CHUNK):
        key_i = jax.random.fold_in(key, i)
        carry, rows = _chunk(noise, clip, *numbers, spectrum, jnp.float32(scale), carry, key_i)
        yield tuple(map(np.asarray, rows))


def mean_square(noise: str) -> float:
    """σ² = E‖g‖² at ‖x‖ = 1 where A = 0."""
    return SECOND_MOMENT[noise] * (1 - 1 / DIM)


@functools.cache
def clipped_mean(noise: str, clip: float) -> tuple[float, float]:
    """μ_C, the largest solution of E[min(t, Cμ)] = μ, and α_C = E[t·1(t < M_{1/C})]/μ_C.

    t is ‖g‖² at ‖x‖ = 1 where A = 0, M_{1/C} its upper 1/C quantile (arXiv 2202.00980,
    definition 4.6 and assumption 4.7).
    """
    rng = np.random.default_rng(0)
    radial, others = rng.chisquare(1, SAMPLES), rng.chisquare(DIM - 1, SAMPLES)
    tangential = others / (radial + others)
    t = noise_size(noise, rng.standard_normal((SAMPLES, 4))) ** 2 * tangential
    mu = float(t.mean())
    for _ in range(200):  # falls to the largest solution
        before, mu = mu, float(np.minimum(t, clip * mu).mean())
        if before - mu < 1e-6 * mu:
            break
    below = t < np.quantile(t, 1 - 1 / clip)
    return mu, float((t * below).mean()) / mu
