import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import (
    ROWS,
    equilibrium,
    rotation,
    scale_invariant_sgd,
    track_rotation,
)


def random_tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 6), "b": (6,)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def flat(tree):
    return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree)])


def angle(x, y):
    return np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize("inner", [optax.sgd(0.1, 0.9), optax.adamw(0.1)])
def test_changes_nothing_and_measures_the_angle_of_any_optimizer(inner):
    with jax.numpy_dtype_promotion("standard"):  # optax.adamw mixes dtypes
        tx = track_rotation(inner)
        update, bare_update = jax.jit(tx.update), jax.jit(inner.update)
        params = bare_params = random_tree(0)
        state, bare_state = tx.init(params), inner.init(params)
        for t in range(4):
            updates, state = update(random_tree(t + 1), state, params)
            bare, bare_state = bare_update(random_tree(t + 1), bare_state, bare_params)
            before, params = params, optax.apply_updates(params, updates)
            bare_params = optax.apply_updates(bare_params, bare)
            np.testing.assert_allclose(state.rotation, angle(flat(before), flat(params)), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, params, bare_params)
    assert state.count == 4


def test_measures_norms_radial_part_and_effective_learning_rate():
    params, grads = random_tree(0), random_tree(1)
    x, g = flat(params), flat(grads)
    for rate in (0.1, lambda count: 0.1, None):
        tx = track_rotation(optax.sgd(0.1), rate)
        _, state = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(state.effective_learning_rate, 0.1 / (x @ x), rtol=1e-5)
        np.testing.assert_allclose(state.param_norm, np.linalg.norm(x), rtol=1e-6)
        np.testing.assert_allclose(state.grad_norm, np.linalg.norm(g), rtol=1e-6)
        cosine = x @ g / np.linalg.norm(x) / np.linalg.norm(g)
        np.testing.assert_allclose(state.radial_cosine, cosine, rtol=1e-5)


def test_blocks_are_measured_apart():
    params, grads = random_tree(0), random_tree(1)
    tx = track_rotation(optax.sgd(0.1), 0.1, blocks={"w": "matrix", "b": "bias"})
    updates, state = tx.update(grads, tx.init(params), params)
    for leaf, name in (("w", "matrix"), ("b", "bias")):
        np.testing.assert_allclose(
            state.rotation[name], rotation(params[leaf], updates[leaf]), rtol=1e-6
        )
        np.testing.assert_allclose(state.param_norm[name], jnp.linalg.norm(params[leaf]), rtol=1e-6)


def test_a_scale_invariant_loss_turns_at_the_equilibrium_rotation():
    """L(x) = ⟨z, x/‖x‖⟩ with fresh random z: the reported angle is √(2ηλ) in the long run."""
    eta, lam = 0.5, 0.01
    tx = track_rotation(scale_invariant_sgd(eta, lam, clip_factor=None), eta)

    def step(carry, key):
        x, state = carry
        z = jax.random.normal(key, x.shape)
        g = jax.grad(lambda x: jnp.vdot(z, x) / jnp.linalg.norm(x))(x)
        updates, state = tx.update(g, state, x)
        return (x + updates, state), (state.rotation, state.radial_cosine)

    x = jnp.ones(64)
    keys = jax.random.split(jax.random.key(0), 1500)
    _, (angles, cosines) = jax.jit(lambda: jax.lax.scan(step, (x, tx.init(x)), keys))()
    predicted = equilibrium.rotation_per_step(eta, lam)
    np.testing.assert_allclose(np.sqrt(np.mean(angles[700:] ** 2)), predicted, rtol=0.02)
    assert np.max(np.abs(cosines)) < 1e-6


def test_zero_gradient_and_zero_parameters_give_zeros():
    zeros = jax.tree.map(jnp.zeros_like, random_tree(0))
    tx = track_rotation(optax.sgd(0.1))
    for params, grads in ((zeros, random_tree(1)), (random_tree(1), zeros)):
        _, state = tx.update(grads, tx.init(params), params)
        assert state.rotation == 0
        assert state.effective_learning_rate == 0
        assert state.radial_cosine == 0


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_gradient_that_is_not_finite_shows_and_the_updates_stay_those_of_the_inner(value):
    params, grads = random_tree(0), random_tree(1)
    grads["b"] = grads["b"].at[0].set(value)
    tx = track_rotation(optax.sgd(0.1), 0.1, blocks={"w": "w", "b": "b"})
    updates, state = tx.update(grads, tx.init(params), params)
    jax.tree.map(lambda u, g: np.testing.assert_array_equal(u, -0.1 * g), updates, grads)
    for field in (state.grad_norm, state.rotation, state.radial_cosine):
        assert not np.isfinite(field["b"])
        assert np.isfinite(field["w"])


def test_rows_and_missing_params_are_refused():
    with pytest.raises(ValueError, match="ROWS is no label"):
        track_rotation(optax.sgd(0.1), blocks=ROWS).init(random_tree(0))
    tx = track_rotation(optax.sgd(0.1))
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        tx.update(random_tree(1), tx.init(random_tree(0)))
