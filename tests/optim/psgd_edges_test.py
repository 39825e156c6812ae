"""PSGD on gradients that are absent, empty, zero, broken, sparse, tiny or huge; its states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from sibert_jax.optim import (
    KronPreconditioner,
    PsgdState,
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


def forms(*default):
    """Parametrize over the forms; all but the default ones are slow tests."""
    slow = {name: [] if name in default else [pytest.mark.slow] for name in FORMS}
    params = [pytest.param(make, id=name, marks=slow[name]) for name, make in FORMS.items()]
    return pytest.mark.parametrize("make", params)


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


@forms("matrix free")
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


@forms()
def test_useless_gradient_leaves_the_preconditioner_alone(make):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2), "s": jnp.float32(1.0)}
    tx = make()
    grads = jax.tree.map(lambda x: x * 0.3, params)
    update = jax.jit(tx.update)
    _, state = update(grads, tx.init(params))
    for value in (0.0, jnp.nan, jnp.inf):
        _, after = update(jax.tree.map(lambda x, v=value: jnp.full_like(x, v), params), state)
        assert_equal(after.preconditioner, state.preconditioner)
    _, after = update(grads, state)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after, state)
    assert any(jax.tree.leaves(changed.preconditioner))


@forms("matrix free")
def test_update_every_skips_the_fit_in_between(make):
    tx, g = make(update_every=3), gradients(1)["w"][0]
    update, state = jax.jit(tx.update), tx.init(g)
    fitted = []
    for t in range(5):
        updates, new = update(g * (t + 1), state)
        pairs = zip(jax.tree.leaves(new.preconditioner), jax.tree.leaves(state.preconditioner))
        fitted.append(any(not np.array_equal(a, b) for a, b in pairs))
        if t == 0:  # already has entries of size one
            assert 0.4 < np.sqrt(np.mean(np.square(updates))) < 2
        state = new
    assert fitted == [True, False, False, True, False]


@forms("matrix free")
def test_none_and_empty_leaves_are_passed_over(make):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3), "empty": jnp.zeros((0, 4)), "no": None}
    grads = params | {"w": None}
    tx = make()
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(grads, state, params)
    assert updates["w"] is updates["no"] is None
    assert updates["empty"].shape == (0, 4)
    assert np.all(np.isfinite(updates["b"]))
    assert np.any(updates["b"] != grads["b"])
    before, after = tx.init(params).preconditioner, state.preconditioner
    for field in set(before._fields) - {"bounds"}:
        assert_equal(getattr(after, field)["w"], getattr(before, field)["w"])
    alone, _ = tx.update(dict.fromkeys(params), state, params)
    assert jax.tree.leaves(alone) == []
    with pytest.raises(ValueError, match="another tree structure than the parameters"):
        tx.update({"w": params["w"]}, state)


@forms("matrix free")
@pytest.mark.parametrize("mode", ["whitening", pytest.param("newton", marks=pytest.mark.slow)])
def test_every_finite_input_gives_finite_results(make, mode):
    scales = np.array([1e-30, 1e30, 0.0, 1e-38, 3e37, 1.0, 1e-12, 1e20, 1e-20, 3e37] * 4)
    g = jax.tree.map(
        lambda x: jnp.asarray(scales, jnp.float32).reshape(-1, *[1] * (x.ndim - 1)) * x,
        gradients(40, scales=(1.0, 1e-6)),
    )
    v = gradients(40, scales=(1.0, 1.0), seed=1)
    result = trained(make(0.9, mode=mode), g, vector=v, hvp=g)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(result))


@pytest.mark.slow
def test_low_rank_stays_finite_on_an_ill_conditioned_hessian():
    """U and V must not grow against each other, nor their ratio drift."""
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 12, 3)) * 0.5
    root = np.linalg.inv((np.eye(12) + u @ v.T) * np.geomspace(0.3, 3, 12))
    tx, v = scale_by_psgd_low_rank(0.9, rank=3, mode="newton"), rng.normal(size=(5000, 12))
    v, hv = (jnp.asarray(x, jnp.float32) for x in (v, v @ root @ root.T))
    q = trained(tx, v, vector=v, hvp=hv)[1].preconditioner
    norms = np.linalg.norm(q.u), np.linalg.norm(q.v)
    assert max(norms) < 1000
    np.testing.assert_allclose(*norms, rtol=0.5)


@pytest.mark.slow
def test_equal_shapes_are_fitted_as_one():
    """The program grows with the number of shapes."""

    def program(leaves):
        params = [jnp.ones((4, 3))] * leaves
        tx = scale_by_psgd_kron()
        return str(jax.make_jaxpr(tx.update)(params, tx.init(params)))

    assert program(2).count("dot_general") == program(20).count("dot_general")


@pytest.mark.slow
def test_tensor_is_fitted_among_equals_as_alone():
    tx = scale_by_psgd_kron(0.5)
    grads = [gradients(20, seed=s)["w"] for s in range(3)]
    together, _ = trained(tx, dict(enumerate(grads)))
    alone, _ = trained(tx, {1: grads[1]})
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-2, atol=1e-3)


@forms("kron", "matrix free")
def test_states_are_trees_like_the_parameters(make):
    params = {"w": jnp.ones((3, 2)), "n": {"b": jnp.ones(3)}}
    tx = make()
    state = tx.init(params)
    shapes = jax.eval_shape(lambda: tx.update(params, state, params, of_others=1.0))
    assert jax.tree.structure(shapes) == jax.tree.structure((params, state))
    doubled = optax.tree.map_params(tx, lambda x: 2 * x, state)
    assert isinstance(doubled, PsgdState)
    before, after = (s.preconditioner._replace(bounds=()) for s in (state, doubled))
    assert_equal(after, jax.tree.map(lambda x: 2 * x, before))
    for field in set(state.preconditioner._fields) - {"bounds"}:
        assert set(getattr(state.preconditioner, field)) == {"w", "n"}


def test_shardings_of_parameters_map_over_the_factors():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
    tx = scale_by_psgd_kron()
    specs = {"w": PartitionSpec("x", None), "b": PartitionSpec(None)}
    mapped = optax.tree.map_params(
        tx,
        lambda factors, spec: tuple(PartitionSpec(axis) for axis, _ in zip(spec, factors)),
        tx.init(params),
        specs,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    assert isinstance(mapped.preconditioner, KronPreconditioner)
    assert mapped.preconditioner.factors["w"] == (PartitionSpec("x"), PartitionSpec(None))


@pytest.mark.slow
def test_kron_trains_in_the_optimizer_of_nnx():
    """It stores a tuple in the state as a mapping by position."""
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(scale_by_psgd_kron(update_every=2), optax.scale(-0.01))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(jnp.square(m(jnp.eye(4)) - 1)))(model)
        optimizer.update(model, grads)
        return loss

    losses = [step(model, optimizer) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


@forms()
def test_float64_leaves_are_fitted_in_float64(make):
    with jax.enable_x64(True):
        params = {"w": jnp.ones((3, 2), jnp.float64), "b": jnp.ones(3, jnp.float32)}
        grads = {"w": 1e-200 * params["w"], "b": params["b"]}
        tx = make()
        updates, state = jax.jit(tx.update)(grads, tx.init(params))
        assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)
        assert 0.3 < np.sqrt(np.mean(np.square(updates["w"]))) < 3
        dtypes = jax.tree.map(lambda x: x.dtype, tx.init(params))
        assert jax.tree.map(lambda x: x.dtype, state) == dtypes
