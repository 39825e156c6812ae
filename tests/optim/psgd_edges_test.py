"""PSGD on gradients that are absent, empty, zero, broken, sparse, tiny or huge; its states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import (
    scale_by_psgd_kron,
    scale_by_psgd_low_rank,
    scale_by_psgd_matrix_free,
)

from .conftest import assert_equal

FORMS = {
    "kron": scale_by_psgd_kron,
    "triangular kron": functools.partial(scale_by_psgd_kron, update_form="triangular"),
    "low rank": functools.partial(scale_by_psgd_low_rank, rank=2),
    "matrix free": scale_by_psgd_matrix_free,
}

pytestmark = pytest.mark.slow  # fits take seconds
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS.keys())


def gradients(steps, scales=(1e-4, 1e-4), seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"w": (6, 4), "b": (5,)}
    return {
        k: jnp.asarray(scale * rng.normal(size=(steps, *shape)), jnp.float32)
        for (k, shape), scale in zip(shapes.items(), scales)
    }


@functools.cache
def steps_of(update):
    """Compile the loop over steps once for each transform."""

    def step(state, at_step):
        g, extra_args = at_step
        updates, state = update(g, state, None, **extra_args)
        return state, updates

    return jax.jit(lambda *arguments: jax.lax.scan(step, *arguments))


def trained(tx, grads, **extra_args):
    """Return the updates of all steps and the last state."""
    start = tx.init(jax.tree.map(lambda g: jnp.zeros(g.shape[1:], g.dtype), grads))
    state, updates = steps_of(tx.update)(start, (grads, extra_args))
    return updates, state


def root_mean_squares(updates):
    """Return the rms of every leaf over the last ten steps."""
    return [float(jnp.sqrt(jnp.mean(jnp.square(u[-10:])))) for u in jax.tree.leaves(updates)]


@every_form
def test_useless_first_gradients_cost_nothing(make):
    """The scale of Q comes from the first gradient that has one, leaf by leaf."""
    tx, grads = make(), gradients(45, scales=(1e-4, 1e-8))
    first = jnp.array([0.0, 0.0, 0.0, jnp.nan, jnp.inf])
    w = grads["w"].at[:5].set(first[:, None, None])
    b = grads["b"].at[:3].set(0.0).at[5:15].set(0.0)
    updates, state = trained(tx, {"w": w, "b": b})
    assert all(0.3 < size < 4 for size in root_mean_squares(updates))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))
    small_by_chance = jax.tree.map(lambda g: g.at[0].multiply(1e-6), gradients(45))
    updates, _ = trained(tx, small_by_chance)
    assert all(np.max(np.abs(u)) < 60 for u in jax.tree.leaves(updates))
    assert all(size < 10 for size in root_mean_squares(updates))


@every_form
@pytest.mark.parametrize(
    ("update_every", "sizes", "wanted"),
    [(3, [1, 2, 3, 4, 5], [1, 0, 0, 1, 0]), (1, [1, 0, jnp.nan, jnp.inf, 2], [1, 0, 0, 0, 1])],
)
def test_fits_every_so_often_and_to_no_useless_gradient(make, update_every, sizes, wanted):
    tx, g = make(update_every=update_every), gradients(1)["w"][0]
    update, state = jax.jit(tx.update), tx.init(g)
    fitted = []
    for size in sizes:
        updates, new = update(g * size, state)
        pairs = zip(jax.tree.leaves(new.preconditioner), jax.tree.leaves(state.preconditioner))
        fitted.append(any(not np.array_equal(a, b) for a, b in pairs))
        if len(fitted) == 1:  # already has entries of size one
            assert 0.4 < np.sqrt(np.mean(np.square(updates))) < 2
        state = new
    assert fitted == wanted


@every_form
def test_none_and_empty_leaves_are_passed_over(make):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3), "empty": jnp.zeros((0, 4)), "no": None}
    grads = params | {"w": None}
    tx = make()
    state, update = tx.init(params), jax.jit(tx.update)
    doubled = optax.tree.map_params(tx, lambda x: 2 * x, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    for _ in range(2):
        updates, state = update(grads, state, params)
    assert updates["w"] is updates["no"] is None
    assert updates["empty"].shape == (0, 4)
    assert np.all(np.isfinite(updates["b"]))
    assert np.any(updates["b"] != grads["b"])
    before, after = tx.init(params).preconditioner, state.preconditioner
    for field in set(before._fields) - {"bounds"}:
        assert_equal(getattr(after, field)["w"], getattr(before, field)["w"])
    with pytest.raises(ValueError, match="another tree structure than the parameters"):
        tx.update({"w": params["w"]}, state)


@every_form
@pytest.mark.parametrize("mode", ["whitening", "newton"])
def test_every_finite_input_gives_finite_results(make, mode):
    scales = np.array([1e-30, 1e30, 0.0, 1e-38, 3e37, 1.0, 1e-12, 1e20, 1e-20, 3e37] * 4)
    g = jax.tree.map(
        lambda x: jnp.asarray(scales, jnp.float32).reshape(-1, *[1] * (x.ndim - 1)) * x,
        gradients(40, scales=(1.0, 1e-6)),
    )
    v = gradients(40, scales=(1.0, 1.0), seed=1)
    result = trained(make(0.9, mode=mode), g, vector=v, hvp=g)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(result))


@every_form
def test_float64_leaves_are_fitted_in_float64(make):
    with jax.enable_x64(True):
        params = {"w": jnp.ones((3, 2), jnp.float64), "b": jnp.ones(3, jnp.float32)}
        grads = {"w": 1e-200 * params["w"], "b": params["b"]}
        tx = make()
        updates, state = jax.jit(tx.update)(grads, tx.init(params))
        found, wanted = (updates, state), (params, tx.init(params))
        jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), found, wanted)
        assert 0.3 < np.sqrt(np.mean(np.square(updates["w"]))) < 3
