"""Directions for matrices against the papers' equations in float64, one matrix at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from sibert_jax.optim import (
    clip_by_relative_unit_norm,
    hyperball,
    scale_by_orthogonalization,
    scale_by_sinkhorn,
    scale_by_unit_rms,
    scale_by_whitening,
)

from .conftest import assert_close, assert_equal, first_update, random_tree

# Name -> shape, axes, and how numpy makes a stack of matrices (B, I, O) of it.
LEAVES = {
    "query": ((2, 4, 3, 2), MuonDimensionNumbers(1, (2, 3)), lambda g: g.reshape(2, 4, 6)),
    "torch": ((4, 3), MuonDimensionNumbers(1, 0), lambda g: g.T[None]),
    "table": ((7, 3), MuonDimensionNumbers(0, 1), lambda g: g[None]),
}
SHAPES = [(name, shape) for name, (shape, _, _) in LEAVES.items()]
AXES = {name: axes for name, (_, axes, _) in LEAVES.items()} | {"bias": None}
tree = functools.partial(random_tree, shapes=[*SHAPES, ("bias", (5,))])


def rms(g, axis=None):
    return np.sqrt(np.mean(g * g, axis=axis, keepdims=True))


def sinkhorn(g_IO):
    x = g_IO.T  # the paper's (m, n)
    m, n = x.shape
    for _ in range(5):
        x = np.sqrt(n) * np.diag(1 / np.linalg.norm(x, axis=1)) @ x
        x = np.sqrt(m) * x @ np.diag(1 / np.linalg.norm(x, axis=0))
    return x.T


def swan(g_IO, num_steps=10):
    """Algorithms 2 and 3, with their pair of iterates Y and Z and β = 1/2."""
    g = g_IO.T
    s = (g - g.mean(1, keepdims=True)) / g.std(1, keepdims=True)
    y, z = s @ s.T / np.sum(s * s), np.eye(len(s))
    for _ in range(num_steps):
        y, z = 0.5 * y @ (3 * np.eye(len(s)) - z @ y), 0.5 * (3 * np.eye(len(s)) - z @ y) @ z
    return (z @ s * np.linalg.norm(s) / np.linalg.norm(z @ s)).T


def muon(g_IO):
    x = g_IO / np.linalg.norm(g_IO)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return np.sqrt(max(g_IO.shape)) * x


# Name -> transform, the same for a matrix in numpy, tolerance.
DIRECTIONS = {
    "outputs": (scale_by_unit_rms, lambda g: g / rms(g, 0), 1e-5),
    "inputs": (functools.partial(scale_by_unit_rms, "input"), lambda g: g / rms(g, 1), 1e-5),
    "sinkhorn": (scale_by_sinkhorn, sinkhorn, 1e-5),
    "whitening": (scale_by_whitening, swan, 1e-4),
    "orthogonalization": (scale_by_orthogonalization, muon, 1e-3),
}
every_direction = pytest.mark.parametrize("name", DIRECTIONS)


def direction(name):
    return DIRECTIONS[name][0](axes=AXES)


def updated(tx, grads):
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])(grads)


@functools.cache
def compiled(name):
    tx = direction(name)
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])


@every_direction
def test_each_matrix_gets_the_published_direction(name):
    _, published, tolerance = DIRECTIONS[name]
    grads = tree(0)
    updates = compiled(name)(grads)
    for leaf, (_, _, stacked) in LEAVES.items():
        found, given = (stacked(np.float64(x[leaf])) for x in (updates, grads))
        for u_IO, g_IO in zip(found, given, strict=True):
            np.testing.assert_allclose(u_IO, published(g_IO), rtol=0, atol=tolerance)
    np.testing.assert_allclose(updates["bias"], grads["bias"] / rms(grads["bias"]), rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_a_power_of_the_norm_is_left(power):
    grads = tree(0)
    updates = scale_by_unit_rms("input", power).update(grads["table"], optax.EmptyState())[0]
    table = np.float64(grads["table"])
    np.testing.assert_allclose(updates, table / rms(table, 1) ** power, rtol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**90])
@every_direction
def test_the_size_of_a_gradient_changes_no_bit(name, scale):
    scaled = jax.tree.map(lambda g: scale * g, tree(0))
    assert_equal(compiled(name)(scaled), compiled(name)(tree(0)))


@every_direction
def test_zeros_stay_zero(name):
    zeros = jax.tree.map(jnp.zeros_like, tree(0))
    assert_equal(compiled(name)(zeros), zeros)
    grads = tree(0)
    grads["table"] = grads["table"].at[2].set(0.0)
    grads["torch"] = grads["torch"].at[1].set(0.0)
    updates = compiled(name)(grads)
    assert all(jnp.all(jnp.isfinite(u)) for u in updates.values())
    assert not jnp.any(updates["torch"][1])
    if name != "whitening":  # which subtracts a mean over the inputs
        assert not jnp.any(updates["table"][2])


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@every_direction
def test_one_bad_entry_spoils_its_unit_or_matrix_alone(name, value):
    grads = tree(0)
    clean = compiled(name)(grads)
    updates = compiled(name)(grads | {"query": grads["query"].at[1, 3, 2, 0].set(value)})
    bad = {"outputs": np.s_[1, :, 2, 0], "inputs": np.s_[1, 3]}.get(name, np.s_[1])
    is_bad = np.zeros((2, 4, 3, 2), bool)
    is_bad[bad] = True
    np.testing.assert_array_equal(jnp.isnan(updates["query"]), is_bad)
    wanted = clean | {"query": jnp.where(is_bad, jnp.nan, clean["query"])}
    assert_close(updates, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["inputs", "whitening"])
def test_on_the_sphere_of_several_leaves_it_turns_by_the_angle(name):
    labels = {k: "tables" if k == "table" else "encoder" for k in AXES}
    tx = hyperball(optax.chain(direction(name), optax.scale(-1.0)), 0.01, blocks=labels)
    params = tree(1)
    updates = jax.jit(lambda g, x: first_update(tx, g, x)[0])(tree(0), params)
    new = jax.tree.map(jnp.add, params, updates)
    assert optax.tree.vdot(updates, tree(0)) < 0
    norms = [
        optax.tree.norm({k: x for k, x in t.items() if k != "table"})
        for t in (params, new, updates)
    ]
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-6)
    np.testing.assert_allclose(norms[2] / norms[0], 0.01, rtol=0.02)


@pytest.mark.parametrize(("units", "axis"), [("input", 1), ("output", 0)])
def test_the_clip_bounds_each_unit_by_its_own_weights(units, axis):
    params, updates = tree(1), tree(0)
    params["table"] = params["table"].at[2].set(0.0)
    clip = clip_by_relative_unit_norm(0.5, units, axes=AXES)
    clipped = jax.jit(lambda u, x: first_update(clip, u, x)[0])(updates, params)
    for leaf, (_, _, stacked) in LEAVES.items():
        found, u, x = (stacked(np.float64(t[leaf])) for t in (clipped, updates, params))
        for found_IO, u_IO, x_IO in zip(found, u, x, strict=True):
            of_u, of_x = (np.linalg.norm(m, axis=axis, keepdims=True) for m in (u_IO, x_IO))
            factor = np.where(of_x > 0, np.minimum(1, 0.5 * of_x / of_u), 1)
            np.testing.assert_allclose(found_IO, factor * u_IO, rtol=1e-5)


def test_the_default_axes_are_the_last_two():
    grads = {k: tree(0)[k] for k in ("table", "bias")}
    found = updated(scale_by_unit_rms(), grads)
    assert_equal(found, {k: compiled("outputs")(tree(0))[k] for k in grads})


@pytest.mark.parametrize(
    "axes",
    [
        {"table": MuonDimensionNumbers(0, 0), "bias": None},
        {"table": MuonDimensionNumbers(0, 2), "bias": None},
        {"table": MuonDimensionNumbers((), (0, 1)), "bias": None},
        {"bias": None},
    ],
)
def test_axes_that_do_not_fit_are_named(axes):
    params = {k: tree(0)[k] for k in ("table", "bias")}
    with pytest.raises(ValueError, match="leaf table with 2 axes has the matrix axes"):
        scale_by_sinkhorn(axes=axes).init(params)
