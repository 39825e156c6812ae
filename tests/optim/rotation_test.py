"""Angles, radial parts and effective learning rates against float64, alone and tracked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import (
    effective_learning_rate,
    radial_cosine,
    rotation,
    sgd_rotation,
    track_rotation,
)

from .conftest import assert_equal, first_update, random_tree, trained


def flat(tree):
    return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree)])


def angle(x, y):
    """Return the angle between two vectors in float64, exact for small ones too."""
    return np.arctan2(np.linalg.norm(y - y @ x / (x @ x) * x), y @ x / np.linalg.norm(x))


def cosine(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize("theta", [1e-8, 1e-4, 3.0])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_recovers_a_known_angle_however_small(theta, scale):
    """x + u = cos θ·x + sin θ·‖x‖·t with a unit vector t ⟂ x turns x by θ."""
    x, t = np.random.default_rng(0).normal(size=(2, 50))
    t -= t @ x / (x @ x) * x
    x *= scale
    u = (np.cos(theta) - 1) * x + np.sin(theta) * np.linalg.norm(x) * t / np.linalg.norm(t)
    params, updates = (
        [jnp.asarray(y[:20], jnp.float32), jnp.asarray(y[20:], jnp.float32)] for y in (x, u)
    )
    np.testing.assert_allclose(rotation(params, updates), theta, rtol=2e-3)


@pytest.mark.parametrize("ratio", [1e-4, 10])
@pytest.mark.parametrize(("decay", "cosine"), [(0, 0), (0.5, 0.9), (0.1, -0.9)])
def test_angle_of_an_sgd_step_follows_from_norms_and_cosine(ratio, decay, cosine):
    """Against numpy's angle in float64 of a step with ‖ηg‖/‖x‖ and ⟨x, g⟩/(‖x‖‖g‖) as given."""
    x, t = np.random.default_rng(0).normal(size=(2, 30))
    t -= t @ x / (x @ x) * x
    unit = cosine * x / np.linalg.norm(x) + np.sqrt(1 - cosine**2) * t / np.linalg.norm(t)
    eta, x_norm = 0.25, np.linalg.norm(x)
    g_norm = ratio * x_norm / eta
    new = (1 - decay) * x - eta * g_norm * unit
    found = sgd_rotation(eta, decay / eta, x_norm, g_norm, cosine)
    np.testing.assert_allclose(found, angle(x, new), rtol=1e-3)
    updates = jnp.asarray(new - x, jnp.float32)
    np.testing.assert_allclose(rotation(jnp.asarray(x, jnp.float32), updates), found, rtol=2e-2)


ZERO, ONE, NAN = jnp.zeros(3), jnp.ones(3), jnp.array([1.0, jnp.nan, 2.0])


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (lambda: rotation(ZERO, ONE), 0),
        (lambda: rotation(ONE, ZERO), 0),
        (lambda: rotation(NAN, ONE), np.nan),
        (lambda: rotation(ONE, -2 * ONE), np.pi),
        (lambda: radial_cosine(ZERO, ONE), 0),
        (lambda: radial_cosine(ONE, ZERO), 0),
        (lambda: radial_cosine(ONE, NAN), np.nan),
        (lambda: effective_learning_rate(0.1, ZERO), 0),
        (lambda: effective_learning_rate(0.1, NAN), np.nan),
        (lambda: effective_learning_rate(1e-20, jnp.full(4, 1e-17)), 2.5e13),
        (lambda: sgd_rotation(0.5, 0.1, 0.0, 1.0, 0.0), 0),
        (lambda: sgd_rotation(0.5, 0.1, 1.0, 1.0, jnp.nan), np.nan),
    ],
)
def test_values_at_the_edge(found, wanted):
    np.testing.assert_allclose(found(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("of_x", "of_u"), [(1e-15, 1e-17), (1e15, 1e18), (1e-15, 1e15), (1, 1e-17)]
)
def test_products_of_norms_may_lie_beyond_float32(of_x, of_u):
    """Against float64: the norms are within 1e-19 ... 1e19, their products and squares not."""
    rng = np.random.default_rng(3)
    x, u = of_x * rng.normal(size=8), of_u * rng.normal(size=8)
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(u, jnp.float32)
    np.testing.assert_allclose(radial_cosine(*arrays), cosine(x, u), rtol=1e-5)
    tangential = np.linalg.norm(u - x @ u / (x @ x) * x)
    wanted = np.arctan2(tangential, np.linalg.norm(x) + cosine(x, u) * np.linalg.norm(u))
    np.testing.assert_allclose(rotation(*arrays), wanted, rtol=1e-5)


def test_tracking_changes_nothing_and_measures_the_angle():
    inner = optax.sgd(0.1, 0.9)
    start, seeds = random_tree(0), range(1, 4)
    before, _ = trained(inner, start, seeds[:-1])
    wanted, _ = trained(inner, start, seeds)
    params, state = trained(track_rotation(inner), start, seeds)
    assert_equal(params, wanted)
    np.testing.assert_allclose(state.rotation, angle(flat(before), flat(params)), rtol=1e-4)
    assert state.count == 3


@pytest.mark.parametrize("rate", [0.1, lambda count: 0.1, None])
def test_tracks_norms_radial_part_and_effective_learning_rate(rate):
    params, grads = random_tree(0), random_tree(1)
    x, g = flat(params), flat(grads)
    _, state = first_update(track_rotation(optax.sgd(0.1), rate), grads, params)
    np.testing.assert_allclose(state.effective_learning_rate, 0.1 / (x @ x), rtol=1e-5)
    np.testing.assert_allclose(state.param_norm, np.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose(state.grad_norm, np.linalg.norm(g), rtol=1e-6)
    np.testing.assert_allclose(state.radial_cosine, cosine(x, g), rtol=1e-5)


@pytest.mark.parametrize("value", [0.5, jnp.inf])
def test_blocks_are_measured_apart(value):
    """A gradient that is not finite shows in its block, and the updates are the inner ones."""
    params, grads = random_tree(0), random_tree(1)
    grads["b"] = grads["b"].at[0].set(value)
    tx = track_rotation(optax.sgd(0.1), 0.1, blocks={"w": "matrix", "b": "bias"})
    updates, state = first_update(tx, grads, params)
    assert_equal(updates, jax.tree.map(lambda g: -0.1 * g, grads))
    for leaf, name in (("w", "matrix"), ("b", "bias")):
        wanted = rotation(params[leaf], updates[leaf])
        np.testing.assert_allclose(state.rotation[name], wanted, rtol=1e-6)
        np.testing.assert_allclose(state.param_norm[name], jnp.linalg.norm(params[leaf]), rtol=1e-6)
        for field in (state.grad_norm, state.rotation, state.radial_cosine):
            assert np.isfinite(field[name]) == (leaf == "w" or value == 0.5)
