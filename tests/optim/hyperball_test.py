"""Hyperball against the published step in float64: norms stay, angles are the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import ROWS, Rows, hyperball

from .conftest import assert_close, first_update, random_tree, trained

SHAPES = (("w", (4, 6)), ("v", (4, 6)))


def tree(seed, scale=1.0):
    return random_tree(seed, scale, SHAPES)


@pytest.mark.parametrize(("eta", "scale"), [(1e-3, 1.0), (0.1, 1e-12), (1.0, 1e12)])
def test_each_tensor_takes_the_published_step(eta, scale):
    """W ← R·N(W − ηR·N(g)), whatever the size of g."""
    params, grads = tree(0), tree(1, scale)
    updates, _ = first_update(hyperball(optax.sgd(1.0), eta), grads, params)
    for k in params:
        w, g = np.float64(params[k]), np.float64(grads[k])
        radius = np.linalg.norm(w)
        moved = w - eta * radius * g / np.linalg.norm(g)
        wanted = radius * moved / np.linalg.norm(moved)
        np.testing.assert_allclose(params[k] + updates[k], wanted, rtol=1e-5, atol=1e-6 * radius)


@pytest.mark.parametrize("blocks", [None, {"w": ROWS, "v": "v"}])
@pytest.mark.parametrize(
    ("of_params", "of_grads"), [(1, 1e-33), (1, 1e-15), (1, 1e20), (1, 1e37), (1e-25, 1e25)]
)
def test_only_directions_count_where_squares_would_overflow(of_params, of_grads, blocks):
    """Scaling x scales the step, scaling g changes nothing; the scales are powers of two."""
    tx = hyperball(optax.sgd(1.0), 0.1, blocks=blocks)

    def step(c, d):
        grads = tree(1, d) | {"w": jnp.zeros((4, 6)).at[0].set(d)}
        return first_update(tx, grads, tree(0, c))[0]

    c, d = (float(2.0 ** round(np.log2(scale))) for scale in (of_params, of_grads))
    assert_close(step(c, d), jax.tree.map(lambda u: c * u, step(1.0, 1.0)), rtol=1e-7)


def test_norm_is_kept_over_many_steps():
    start = tree(0)
    params, _ = trained(hyperball(optax.sgd(1.0, momentum=0.9), 0.05), start, range(1, 31))
    for k in start:
        np.testing.assert_allclose(jnp.linalg.norm(params[k]), jnp.linalg.norm(start[k]), rtol=1e-6)
        assert jnp.linalg.norm(params[k] - start[k]) > 0.1


def test_blocks_and_rows_share_a_sphere():
    params = tree(0)
    tx = hyperball(optax.sgd(1.0), 0.3, blocks=lambda p: jax.tree.map(lambda _: "all", p))
    updates, state = first_update(tx, tree(1), params)
    new, radius = optax.apply_updates(params, updates), optax.tree.norm(params)
    np.testing.assert_allclose(optax.tree.norm(new), radius, rtol=1e-6)
    np.testing.assert_allclose(state.radius["all"], radius, rtol=1e-6)
    assert abs(jnp.linalg.norm(new["w"]) / jnp.linalg.norm(params["w"]) - 1) > 1e-3
    by_rows = hyperball(optax.sgd(1.0), 0.3, blocks={"w": ROWS, "v": "v"})
    updates, _ = first_update(by_rows, tree(1), params)
    before, after = (jnp.linalg.norm(w, axis=1) for w in (params["w"], params["w"] + updates["w"]))
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_stacked_layers_have_a_sphere_each_for_all_their_leaves():
    shapes = (("kernel", (2, 3, 4)), ("bias", (2, 4)))
    params, grads = random_tree(0, 1.0, shapes), random_tree(1, 1.0, shapes)
    tx = hyperball(optax.sgd(1.0), 0.3, blocks=lambda p: jax.tree.map(lambda _: Rows("ffn"), p))
    updates, state = first_update(tx, grads, params)
    for i in range(2):
        layer, g = (jax.tree.map(lambda leaf, i=i: leaf[i], tree) for tree in (params, grads))
        one = hyperball(optax.sgd(1.0), 0.3, blocks=lambda p: jax.tree.map(lambda _: "ffn", p))
        wanted, alone = first_update(one, g, layer)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], updates), wanted)
        np.testing.assert_allclose(state.radius["ffn"][i], alone.radius["ffn"], rtol=1e-6)


@pytest.mark.parametrize(
    ("of_params", "of_grads", "eta"),
    [(1.0, 0.0, 0.3), (0.0, 1.0, 0.3), (1.0, 1.0, 0.0)],
)
def test_nothing_moves_where_there_is_nothing_to_turn(of_params, of_grads, eta):
    tx = hyperball(optax.sgd(1.0), eta)
    updates, _ = first_update(tx, tree(1, of_grads), tree(0, of_params))
    assert_close(updates, tree(0, 0.0), atol=5e-7)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_one_entry_that_is_not_finite_spoils_its_own_block(value):
    """A block half of which were 0 or stale would hide what happened."""
    grads = tree(1)
    grads["v"] = grads["v"].at[2, 1].set(value)
    updates, _ = first_update(hyperball(optax.sgd(1.0), 0.3), grads, tree(0))
    assert np.isfinite(updates["w"]).all()
    assert np.isnan(updates["v"]).all()
