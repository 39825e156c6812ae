import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.optim import ROWS, hyperball, rotation

SHAPES = {"w": (4, 6), "v": (6, 3)}


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}


@settings(max_examples=15)
@given(st.integers(0, 2**20), st.floats(1e-3, 1.0), st.sampled_from([1e-12, 1.0, 1e12]))
def test_each_tensor_takes_the_published_step(seed, eta, scale):
    """W ← R·N(W − ηR·N(g)), whatever the size of g."""
    params, grads = random_tree(seed), random_tree(seed + 1, scale)
    tx = hyperball(optax.sgd(1.0), eta)
    updates, _ = tx.update(grads, tx.init(params), params)
    new = optax.apply_updates(params, updates)
    for k in SHAPES:
        w, g = np.float64(params[k]), np.float64(grads[k])
        radius = np.linalg.norm(w)
        moved = w - eta * radius * g / np.linalg.norm(g)
        np.testing.assert_allclose(
            new[k], radius * moved / np.linalg.norm(moved), rtol=1e-5, atol=1e-6 * radius
        )


@pytest.mark.parametrize("blocks", [None, {"w": ROWS, "v": "v"}])
@pytest.mark.parametrize(("of_params", "of_grads"), [(1, 1e-22), (1, 1e-33), (1, 1e19), (1, 1e37),
                                                     (1e-25, 1e25), (1e25, 1e-25)])  # fmt: skip
def test_only_directions_count_where_squares_would_vanish_or_overflow(of_params, of_grads, blocks):
    """Scaling x scales the step, scaling g changes nothing; the scales are powers of two."""
    tx = hyperball(optax.sgd(1.0), 0.1, blocks=blocks)

    def step(c, d):
        params = jax.tree.map(lambda x: c * x, random_tree(0))
        grads = jax.tree.map(lambda g: d * g, random_tree(1)) | {
            "w": jnp.zeros((4, 6)).at[0].set(d)
        }
        return tx.update(grads, tx.init(params), params)[0]

    c, d = (float(2.0 ** round(np.log2(scale))) for scale in (of_params, of_grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, c * b), step(c, d), step(1.0, 1.0))


def test_one_large_entry_is_the_direction():
    """Its square overflows float32."""
    x, g = jnp.array([3.0, 4.0]), jnp.array([1.0, 1e30])
    tx = hyperball(optax.sgd(1.0), 0.1)
    updates, _ = tx.update(g, tx.init(x), x)
    moved = np.array([3.0, 4.0 - 0.1 * 5.0])
    np.testing.assert_allclose(x + updates, 5.0 * moved / np.linalg.norm(moved), rtol=1e-6)


@pytest.mark.parametrize(
    "inner", [optax.sgd(1.0, momentum=0.9), optax.contrib.muon(1.0), optax.adam(1.0)]
)
def test_the_norm_is_kept_for_many_steps_of_any_optimizer(inner):
    with jax.numpy_dtype_promotion("standard"):  # muon and adam mix dtypes
        tx = hyperball(inner, 0.05)
        params = start = random_tree(0)
        state, update = tx.init(params), jax.jit(tx.update)
        for t in range(30):
            updates, state = update(random_tree(t + 1), state, params)
            params = optax.apply_updates(params, updates)
    for k in SHAPES:
        np.testing.assert_allclose(jnp.linalg.norm(params[k]), jnp.linalg.norm(start[k]), rtol=1e-6)
        assert jnp.linalg.norm(params[k] - start[k]) > 0.1


@pytest.mark.parametrize("eta", [1e-4, 1e-2, 0.5])
def test_a_tangential_update_turns_by_the_arctangent_of_the_learning_rate(eta):
    x = jnp.array([3.0, 4.0])
    tx = hyperball(optax.sgd(1.0), eta)
    updates, _ = tx.update(jnp.array([8.0, -6.0]), tx.init(x), x)
    np.testing.assert_allclose(rotation(x, updates), np.arctan(eta), rtol=2e-3)


def test_the_inner_learning_rate_cancels():
    results = []
    for rate in (1e-4, 1.0, 1e4):
        tx = hyperball(optax.sgd(rate, momentum=0.9), 0.1)
        params = random_tree(0)
        state = tx.init(params)
        for t in range(3):
            updates, state = tx.update(random_tree(t + 1), state, params)
            params = optax.apply_updates(params, updates)
        results.append(params)
    for other in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results[0], other
        )


def test_a_block_shares_one_sphere():
    params = random_tree(0)
    tx = hyperball(optax.sgd(1.0), 0.3, blocks=lambda p: jax.tree.map(lambda _: "all", p))
    updates, state = tx.update(random_tree(1), tx.init(params), params)
    new = optax.apply_updates(params, updates)
    radius = optax.tree.norm(params)
    np.testing.assert_allclose(optax.tree.norm(new), radius, rtol=1e-6)
    np.testing.assert_allclose(state.radius["all"], radius, rtol=1e-6)
    assert abs(jnp.linalg.norm(new["w"]) / jnp.linalg.norm(params["w"]) - 1) > 1e-3


def test_rows_have_a_sphere_each():
    params = random_tree(0)
    tx = hyperball(optax.sgd(1.0), 0.3, blocks={"w": ROWS, "v": "v"})
    updates, _ = tx.update(random_tree(1), tx.init(params), params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_allclose(
        jnp.linalg.norm(new["w"], axis=1), jnp.linalg.norm(params["w"], axis=1), rtol=1e-6
    )


def test_zero_updates_and_zero_parameters_stay():
    params = {"w": jnp.ones((2, 2)), "zero": jnp.zeros(3)}
    grads = {"w": jnp.zeros((2, 2)), "zero": jnp.ones(3)}
    tx = hyperball(optax.sgd(1.0), 0.3)
    updates, _ = tx.update(grads, tx.init(params), params)
    jax.tree.map(lambda u: np.testing.assert_allclose(u, 0.0, atol=1e-7), updates)


def test_a_learning_rate_of_zero_moves_nothing():
    params = random_tree(0)
    tx = hyperball(optax.sgd(1.0), 0.0)
    updates, _ = tx.update(random_tree(1), tx.init(params), params)
    jax.tree.map(lambda u: np.testing.assert_allclose(u, 0.0, atol=5e-7), updates)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_one_entry_that_is_not_finite_spoils_its_own_block_only(value):
    """A block half of which were 0 or stale would hide what happened."""
    params = random_tree(0)
    grads = random_tree(1)
    grads["v"] = grads["v"].at[2, 1].set(value)
    tx = hyperball(optax.sgd(1.0), 0.3)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert bool(jnp.all(jnp.isfinite(updates["w"])))
    assert bool(jnp.all(jnp.isnan(updates["v"])))


def test_a_negative_angle_and_missing_params_are_refused():
    with pytest.raises(ValueError, match="learning_rate"):
        hyperball(optax.sgd(1.0), -0.1)
    tx = hyperball(optax.sgd(1.0), 0.1)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        tx.update(random_tree(1), tx.init(random_tree(0)))
