"""Every formula against a simulation of the optimizer itself on random scale-invariant losses.

A loss that depends on the direction of x alone has g ⟂ x and ‖g‖ = √t/‖x‖; each step draws a
direction of g and t = ‖g‖² on the unit sphere, many replicas at a time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import (
    clip_by_relative_global_norm,
    equilibrium,
    rotation,
    scale_invariant_sgd,
)

ETA = 0.05


@functools.partial(jax.jit, static_argnames=("tx", "draw", "num_steps", "replicas", "dim"))
def simulate(tx, draw, num_steps, replicas, norm, dim=2):
    """Return the norms and the angles moved, both (num_steps, replicas)."""

    def one_step(carry, key):
        x, state = carry
        direction_key, size_key = jax.random.split(key)
        if dim == 2:
            tangent = jnp.array([-x[1], x[0]]) * jax.random.rademacher(direction_key, (), x.dtype)
        else:
            tangent = jax.random.normal(direction_key, (dim,))
            tangent -= jnp.vdot(tangent, x) / jnp.vdot(x, x) * x
        root_t = jnp.sqrt(draw(size_key))
        grad = root_t * tangent / (jnp.linalg.norm(tangent) * jnp.linalg.norm(x))
        updates, state = tx.update(grad, state, x)
        new = optax.apply_updates(x, updates)
        return (new, state), (jnp.linalg.norm(new), rotation(x, updates))

    def one_replica(key):
        x = jnp.ones(dim) * norm / dim**0.5
        return jax.lax.scan(one_step, (x, tx.init(x)), jax.random.split(key, num_steps))[1]

    return jax.vmap(one_replica, out_axes=1)(jax.random.split(jax.random.key(0), replicas))


def unit(key):
    return jnp.float32(1.0)


def cubed_normal(key):
    return jnp.abs(jax.random.normal(key)) ** 3


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def momentum_sgd(eta, lam, momentum, convention):
    decay = optax.add_decayed_weights(lam)
    if convention == "coupled":
        return optax.chain(decay, optax.sgd(eta, momentum))
    if convention == "decoupled":
        return optax.chain(optax.trace(momentum), decay, optax.scale(-eta))
    average = optax.chain(optax.trace(momentum), optax.scale(1 - momentum))
    return optax.chain(average, decay, optax.scale(-eta))


@pytest.mark.parametrize(("eta_lambda", "num_steps"), [slow(0.002, 6000), (0.3, 100)])
def test_norm_and_rotation_of_a_constant_gradient_norm(eta_lambda, num_steps):
    """(2λ/η)‖x‖⁴ = σ²/(1−ηλ/2) and cos θ = 1 − ηλ, even for large ηλ."""
    lam, sigma = eta_lambda / ETA, 3.0
    tx = scale_invariant_sgd(ETA, lam, None)
    norms, angles = simulate(tx, lambda key: sigma**2 * unit(key), num_steps, 1, 1.0)
    law = 2 * lam / ETA * float(norms[-1, 0]) ** 4
    np.testing.assert_allclose(law, sigma**2 / (1 - eta_lambda / 2), rtol=2e-3)
    np.testing.assert_allclose(angles[-1, 0], np.arccos(1 - eta_lambda), rtol=2e-3)
    predicted = equilibrium.equilibrium_norm(ETA, lam, sigma)
    np.testing.assert_allclose(predicted, norms[-1, 0], rtol=1e-3)
    predicted = equilibrium.rotation_per_step(ETA, lam)
    np.testing.assert_allclose(predicted, angles[-1, 0], rtol=eta_lambda)


@pytest.mark.parametrize(
    ("momentum", "convention"),
    [(0.9, "coupled"), *(slow(0.9, convention) for convention in ("averaged", "decoupled"))],
)
def test_momentum_norm_and_rotation(momentum, convention):
    lam = {"coupled": 0.002 * (1 - momentum), "decoupled": 0.002, "averaged": 0.002}[convention]
    lam /= ETA
    start = equilibrium.equilibrium_norm(ETA, lam, 1.0, momentum, convention)
    tx = momentum_sgd(ETA, lam, momentum, convention)
    norms, angles = simulate(tx, unit, 1500, 4, start, dim=64)
    np.testing.assert_allclose(np.mean(norms[500:] ** 4) ** 0.25, start, rtol=0.01)
    root_mean_square = np.sqrt(np.mean(np.square(angles[500:])))
    predicted = equilibrium.rotation_per_step(ETA, lam, momentum, convention)
    np.testing.assert_allclose(root_mean_square, predicted, rtol=0.02)


def clipped_mean(samples, clip_factor):
    """Return the largest μ with E min(t, Cμ) = μ, by bisection."""
    low, high = 0.0, float(np.mean(samples))
    for _ in range(60):
        middle = (low + high) / 2
        enough = np.mean(np.minimum(samples, clip_factor * middle)) >= middle
        low, high = (middle, high) if enough else (low, middle)
    return low


def test_heavy_tailed_norm_settles_at_the_clipped_mean():
    lam, draw, clip_factor = 4e-4 / ETA, cubed_normal, 2.0
    samples = np.abs(np.random.default_rng(1).normal(size=200_000)) ** 3
    predicted = clipped_mean(samples, clip_factor)
    start = equilibrium.equilibrium_norm(ETA, lam, np.sqrt(predicted))
    tx = scale_invariant_sgd(ETA, lam, clip_factor)
    norms, _ = simulate(tx, draw, 2500, 128, start)
    law = 2 * lam / ETA * np.mean(np.float64(norms[500:]) ** 4)
    np.testing.assert_allclose(law, predicted, rtol=0.03)
    assert predicted < 0.95 * np.mean(samples)  # the clip matters: this is not the plain mean


def steps_until_back(norms, target):
    """Return the first step from which r² = (‖x‖/target)⁴ stays within [½, 2]."""
    outside = np.flatnonzero(np.abs(np.log2(np.asarray(norms) / target)) > 0.25)
    return 0 if outside.size == 0 else int(outside[-1]) + 2


RECOVERIES = [
    (0.01, 4.0, 0.0, "coupled"),
    slow(100.0, None, 0.0, "coupled"),
    slow(0.01, None, 0.0, "coupled"),
    slow(0.05, 1.5, 0.0, "coupled"),
    slow(0.01, 4.0, 0.9, "coupled"),
    slow(100.0, 4.0, 0.9, "decoupled"),
]


@pytest.mark.parametrize(("scale", "clip_factor", "momentum", "convention"), RECOVERIES)
def test_recovery_time_within_ten_percent(scale, clip_factor, momentum, convention):
    lam = 0.002 * (1 - momentum if convention == "coupled" else 1) / ETA
    target = equilibrium.equilibrium_norm(ETA, lam, 1.0, momentum, convention)
    tx = momentum_sgd(ETA, lam, momentum, convention)
    if clip_factor is not None:
        bound = equilibrium.clip_threshold(ETA, lam, clip_factor, momentum, convention)
        tx = optax.chain(clip_by_relative_global_norm(float(bound)), tx)
    predicted = equilibrium.recovery_steps(
        ETA, lam, scale, clip_factor=clip_factor, momentum=momentum, convention=convention
    )
    # With momentum in two dimensions successive gradients are parallel: more noise, slower growth.
    norms, _ = simulate(tx, unit, 3500, 1, scale * target, dim=64 if momentum else 2)
    measured = steps_until_back(norms[:, 0], target)
    np.testing.assert_allclose(predicted, measured, rtol=0.1)


def test_learning_rate_for_rotation_starts_at_equilibrium():
    """One gradient sets η; the first step then turns by √(2ηλ) and leaves the norm alone."""
    x, g = jnp.array([3.0, 4.0]), jnp.array([-0.08, 0.06])
    eta = equilibrium.learning_rate_for_rotation(0.002, 5.0, 0.1)
    tx = optax.chain(optax.add_decayed_weights(0.002 / eta), optax.sgd(eta))
    updates, _ = tx.update(g, tx.init(x), x)
    np.testing.assert_allclose(rotation(x, updates), np.sqrt(2 * 0.002), rtol=2e-3)
    np.testing.assert_allclose(jnp.linalg.norm(x + updates), 5.0, rtol=1e-5)
    # Twice the norm of the equilibrium that a gradient of this size at this place leads to.
    norm = 2 * equilibrium.equilibrium_norm(8e-4, 1e-2, unit_grad_norm=3.0)
    gap = equilibrium.equilibrium_gap(8e-4, 1e-2, norm, 3.0 / norm)
    np.testing.assert_allclose(gap, np.log(2), rtol=1e-5)
    # √C times the ratio ‖g‖/‖x‖ at equilibrium, where ‖g‖ = 1/‖x‖.
    ratio = 1 / equilibrium.equilibrium_norm(8e-4, 1e-2, 1.0) ** 2
    np.testing.assert_allclose(equilibrium.clip_threshold(8e-4, 1e-2, 4.0), 2 * ratio, rtol=1e-5)
