"""Clipping by relative global norm against its formula in float64, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.optim import ROWS, clip_by_relative_global_norm

from .conftest import assert_close, assert_equal, first_update, numpy_norm, random_tree

SHAPES = (("a", (3, 5)), ("b", (4,)), ("c", ()))


def tree(seed, scale=1.0):
    return random_tree(seed, scale, SHAPES)


def full(value):
    return {k: jnp.full(s, value, jnp.float32) for k, s in SHAPES}


@pytest.mark.parametrize(("ratio", "scale"), [(1e-3, 1e-6), (1.0, 1.0), (1.0, 1e6), (1e3, 1.0)])
def test_equals_the_formula_in_float64(ratio, scale):
    params, updates = tree(0), tree(1, scale)
    out, state = first_update(clip_by_relative_global_norm(ratio), updates, params)
    factor = min(1.0, ratio * numpy_norm(params) / numpy_norm(updates))
    assert_close(out, jax.tree.map(lambda u: factor * np.float64(u), updates))
    np.testing.assert_allclose(state.grad_norm, numpy_norm(updates), rtol=1e-6)
    np.testing.assert_allclose(state.param_norm, numpy_norm(params), rtol=1e-6)
    np.testing.assert_allclose(state.ratio, numpy_norm(updates) / numpy_norm(params), rtol=1e-6)
    assert bool(state.clipped) == (factor < 1)


PARAMS, UPDATES, LARGE = tree(0), tree(1), tree(1, 1e6)
WITH_NAN = LARGE | {"b": jnp.array([1.0, jnp.nan, 2.0, 3.0])}
WITH_INF = UPDATES | {"b": jnp.array([1.0, jnp.inf, 2.0, 3.0])}
# name: (largest ratio, parameters, updates, what comes out, whether clipped)
EDGES = {
    "below the bound": (100.0, PARAMS, UPDATES, UPDATES, False),
    "zero updates": (0.5, PARAMS, full(0), full(0), False),
    "zero parameters": (0.5, full(0), LARGE, LARGE, False),
    "zero ratio": (0.0, PARAMS, UPDATES, full(0), True),
    "infinite ratio": (float("inf"), PARAMS, LARGE, LARGE, False),
    "NaN update": (0.5, PARAMS, WITH_NAN, WITH_NAN, False),
    "infinite parameter": (0.5, PARAMS | {"b": jnp.full(4, jnp.inf)}, LARGE, LARGE, False),
    "infinite update": (0.5, PARAMS, WITH_INF, full(0) | {"b": 0 * WITH_INF["b"]}, True),
    "norm of updates overflows": (0.5, PARAMS, full(1e30), full(0), True),
    "norm of updates underflows": (0.5, PARAMS, full(1e-30), full(1e-30), False),
    "norm of parameters underflows": (0.5, full(1e-30), UPDATES, UPDATES, False),
}


@pytest.mark.parametrize("name", EDGES)
def test_values_at_the_edge(name):
    ratio, params, updates, wanted, clipped = EDGES[name]
    out, state = first_update(clip_by_relative_global_norm(ratio), updates, params)
    assert_equal(out, wanted)
    assert state.clipped == clipped
    norms = (jnp.sqrt(sum(jnp.sum(x**2) for x in tree.values())) for tree in (updates, params))
    of_updates, of_params = norms
    ratio = jnp.where(of_params == 0, 0, of_updates / of_params)
    assert_close((state.grad_norm, state.param_norm, state.ratio), (of_updates, of_params, ratio))


def test_schedule_is_read_at_the_count_and_clips_are_counted():
    tx = clip_by_relative_global_norm(lambda count: 0.5 / (1.0 + count.astype(float)))
    state = tx.init(PARAMS)
    for step in range(3):
        out, state = tx.update(LARGE, state, PARAMS)
        wanted = 0.5 / (1 + step) * numpy_norm(PARAMS)
        np.testing.assert_allclose(numpy_norm(out), wanted, rtol=1e-6)
    _, state = tx.update(tree(1, 1e-3), state, PARAMS)
    assert (state.count, state.clipped_steps) == (4, 3)


def test_labels_make_one_norm_per_block():
    tx = clip_by_relative_global_norm(0.1, blocks={"a": "matrix", "b": "rest", "c": "rest"})
    out, state = first_update(tx, UPDATES, PARAMS)
    for name, members in (("matrix", "a"), ("rest", "bc")):
        x, u, y = ({k: tree[k] for k in members} for tree in (PARAMS, UPDATES, out))
        alone, alone_state = first_update(clip_by_relative_global_norm(0.1), u, x)
        assert_equal(y, alone)
        assert state.grad_norm[name] == alone_state.grad_norm
        assert state.clipped_steps[name] == 1


def test_rows_makes_every_row_a_block():
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(6, 4)) * 10.0 ** np.arange(-3, 3)[:, None], jnp.float32)
    updates = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    tx = clip_by_relative_global_norm(0.5, blocks={"table": ROWS, "rest": "rest"})
    rest = jnp.ones(3)
    out, state = first_update(tx, {"table": updates, "rest": rest}, {"table": table, "rest": rest})
    norms = [np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in (table, updates)]
    factors = np.minimum(1.0, 0.5 * norms[0] / norms[1])
    np.testing.assert_allclose(out["table"], factors * updates, rtol=1e-6)
    np.testing.assert_allclose(state.clipped_fraction["table"], np.mean(factors < 1), rtol=1e-6)
    np.testing.assert_allclose(state.param_norm["table"], np.linalg.norm(table), rtol=1e-6)
    assert 0 < state.clipped_fraction["table"] < 1
    np.testing.assert_allclose(np.asarray(out["rest"]), 0.5, rtol=1e-6)
