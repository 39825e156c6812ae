"""Signed gradient descent: equal steps, a bounded way, and never outside the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.optim import sign_descent

from .conftest import first_update, random_tree


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_step_is_the_rate_against_the_sign(scale):
    params, grads = random_tree(0), random_tree(1, scale)
    updates, _ = first_update(sign_descent(8, 0.25), grads, params)
    for name, g in grads.items():
        np.testing.assert_allclose(updates[name], -0.25 * np.sign(g), rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 7, 200])
def test_the_way_is_half_a_unit_and_then_nothing_moves(num_steps):
    tx, x = sign_descent(num_steps), jnp.zeros(2)
    state, update = tx.init(x), jax.jit(tx.update)
    for step in range(num_steps + 2):
        updates, state = update(jnp.array([1.0, 0.0]), state, x)
        assert (float(updates[0]) < 0) == (step < num_steps)
        x = x + updates
    np.testing.assert_allclose(x, [-(num_steps + 1) / num_steps / 2, 0.0], rtol=1e-5)


def test_no_entry_passes_the_bounds_of_its_leaf():
    params = {"v": jnp.zeros(40), "groups": {"a": jnp.ones(40), "b": jnp.ones(40)}}
    lower, upper = {"v": -0.1, "groups": 0.8}, {"v": 0.1, "groups": {"a": 1.0, "b": 0.9}}
    tx = sign_descent(3, 0.3, lower=lower, upper=upper)
    shapes = [("v", 40), ("a", 40), ("b", 40)]
    state = tx.init(params)
    for seed in range(3):
        drawn = random_tree(seed, 1.0, shapes)
        grads = {"v": drawn.pop("v"), "groups": drawn}
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for leaf, low, high in (
        (params["v"], -0.1, 0.1),
        (params["groups"]["a"], 0.8, 1.0),
        (params["groups"]["b"], 0.8, 0.9),
    ):
        np.testing.assert_allclose([leaf.min(), leaf.max()], [low, high], rtol=1e-6)


def test_it_finds_the_least_of_a_bounded_quadratic():
    target = jnp.array([0.2, -0.3, 5.0])
    tx, x = sign_descent(200, lower=-0.5, upper=0.5), jnp.zeros(3)
    state = tx.init(x)
    update = jax.jit(
        lambda state, x: tx.update(jax.grad(lambda x: ((x - target) ** 2).sum())(x), state, x)
    )
    for _ in range(200):
        updates, state = update(state, x)
        x = x + updates
    np.testing.assert_allclose(x, [0.2, -0.3, 0.5], atol=5e-3)


def test_bounds_must_fit_the_parameters():
    tx = sign_descent(3, lower={"w": 0.0})
    with pytest.raises(ValueError, match="leaf b has no lower bound"):
        first_update(tx, random_tree(1), random_tree(0))
