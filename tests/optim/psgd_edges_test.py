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

FORMS = {
    "kron": scale_by_psgd_kron,
    "triangular kron": functools.partial(scale_by_psgd_kron, update_form="triangular"),
    "low rank": functools.partial(scale_by_psgd_low_rank, rank=2),
    "matrix free": scale_by_psgd_matrix_free,
}


def forms(default):
    """Parametrize over the forms; all but the default ones are slow tests."""
    return pytest.mark.parametrize(
        "make",
        [
            pytest.param(make, id=name, marks=[] if name in default else [pytest.mark.slow])
            for name, make in FORMS.items()
        ],
    )


every_form = forms(default=["matrix free"])
cheap_for_every_form = forms(default=FORMS)

SHAPES = {"w": (6, 4), "b": (5,)}


def gradients(steps, scales=(1e-4, 1e-4), seed=0):
    rng = np.random.default_rng(seed)
    return {
        k: jnp.asarray(scale * rng.normal(size=(steps, *shape)), jnp.float32)
        for (k, shape), scale in zip(SHAPES.items(), scales)
    }


def trained(tx, grads):
    """Return the updates of all steps and the last state."""

    def step(state, g):
        updates, state = tx.update(g, state)
        return state, updates

    start = tx.init(jax.tree.map(lambda g: jnp.zeros(g.shape[1:], g.dtype), grads))
    state, updates = jax.jit(lambda s, g: jax.lax.scan(step, s, g))(start, grads)
    return updates, state


def sizes(updates):
    """Return the rms of every leaf over the last ten steps."""
    return {k: float(jnp.sqrt(jnp.mean(jnp.square(u[-10:])))) for k, u in updates.items()}


@every_form
def test_useless_first_gradients_cost_nothing(make):
    """The scale of Q comes from the first gradient that has one, leaf by leaf."""
    first = jnp.concatenate([jnp.zeros(3), jnp.array([jnp.nan, jnp.inf])])
    grads = gradients(45, scales=(1e-4, 1e-8))
    w = grads["w"].at[:5].set(first[:, None, None])
    b = grads["b"].at[:3].set(0.0).at[5:15].set(0.0)
    updates, state = trained(make(), {"w": w, "b": b})
    assert all(0.3 < size < 4 for size in sizes(updates).values())
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


@forms(default=["kron"])
def test_none_and_empty_leaves_are_passed_over(make):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3), "empty": jnp.zeros((0, 4)), "no": None}
    grads = params | {"w": None}
    tx = make()
    state = tx.init(params)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(grads, state, params)
    assert updates["w"] is None
    assert updates["no"] is None
    assert updates["empty"].shape == (0, 4)
    assert np.all(np.isfinite(updates["b"]))
    assert np.any(updates["b"] != grads["b"])
    before, after = tx.init(params).preconditioner, state.preconditioner
    for field in set(before._fields) - {"bounds"}:
        old, new = getattr(before, field)["w"], getattr(after, field)["w"]
        jax.tree.map(np.testing.assert_array_equal, new, old)
    alone, _ = tx.update({"w": None, "b": None, "empty": None, "no": None}, state, params)
    assert jax.tree.leaves(alone) == []


@cheap_for_every_form
def test_updates_of_another_structure_are_refused(make):
    tx = make()
    state = tx.init({"w": jnp.ones(2), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match="another tree structure than the parameters"):
        tx.update({"w": jnp.ones(2)}, state)


@forms(default=[])
def test_rows_that_never_see_a_gradient_stay_bounded(make):
    grads = gradients(600)
    grads = {"w": grads["w"].at[:, 2:].set(0.0), "b": grads["b"].at[:, 1:].set(0.0)}
    updates, state = trained(make(0.5), grads)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((updates, state)))
    assert 0.3 < float(jnp.sqrt(jnp.mean(jnp.square(updates["w"][-10:, :2])))) < 5


@every_form
@pytest.mark.parametrize("mode", ["whitening", pytest.param("newton", marks=pytest.mark.slow)])
def test_every_finite_input_gives_finite_results(make, mode):
    tx = make(0.9, mode=mode)
    scales = np.array([1e-30, 1e30, 0.0, 1e-38, 3e37, 1.0, 1e-12, 1e20, 1e-20, 3e37] * 4)
    g = jax.tree.map(
        lambda x: jnp.asarray(scales, jnp.float32).reshape(-1, *[1] * (x.ndim - 1)) * x,
        gradients(40, scales=(1.0, 1e-6)),
    )
    v = gradients(40, scales=(1.0, 1.0), seed=1)

    def step(state, pair):
        g, v = pair
        updates, state = tx.update(g, state, None, vector=v, hvp=g)
        return state, updates

    start = tx.init({k: jnp.zeros(shape) for k, shape in SHAPES.items()})
    result = jax.jit(lambda: jax.lax.scan(step, start, (g, v)))()
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(result))


@every_form
def test_a_first_gradient_that_is_small_by_chance_leads_to_no_large_step(make):
    grads = jax.tree.map(lambda g: g.at[0].multiply(1e-6), gradients(40))
    updates, _ = trained(make(), grads)
    assert all(np.max(np.abs(u)) < 60 for u in jax.tree.leaves(updates))
    assert all(size < 10 for size in sizes(updates).values())


@pytest.mark.slow
def test_matrices_whose_gradients_grow_a_hundredfold_are_whitened_again_soon():
    grads = gradients(200)["w"].at[120:].multiply(100.0)
    updates, _ = trained(scale_by_psgd_kron(), {"w": grads})
    assert 0.5 < sizes(updates)["w"] < 2


def test_low_rank_stays_finite_on_an_ill_conditioned_hessian_of_its_family():
    """U and V must not grow against each other, nor their ratio drift."""
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 12, 3)) * 0.5
    q = (np.eye(12) + u @ v.T) * np.geomspace(0.3, 3, 12)
    hessian = jnp.asarray(np.linalg.inv(q.T @ q), jnp.float32)

    def fitted(seed):
        tx = scale_by_psgd_low_rank(0.9, rank=3, mode="newton")

        def step(state, key):
            v = jax.random.normal(key, (12,))
            return tx.update(v, state, None, vector=v, hvp=hessian @ v)[1], None

        keys = jax.random.split(jax.random.key(seed), 5000)
        return jax.lax.scan(step, tx.init(jnp.zeros(12)), keys)[0].preconditioner

    q = jax.jit(jax.vmap(fitted))(jnp.arange(4))
    assert all(np.all(np.isfinite(x)) for x in q)
    norms = np.linalg.norm(q.u, axis=(1, 2)), np.linalg.norm(q.v, axis=(1, 2))
    assert np.max(norms) < 1000
    np.testing.assert_allclose(*norms, rtol=0.5)


def test_equal_shapes_are_fitted_as_one():
    """The program grows with the number of shapes."""

    def program(leaves):
        params = [jnp.ones((4, 3))] * leaves
        tx = scale_by_psgd_kron()
        return str(jax.make_jaxpr(tx.update)(params, tx.init(params)))

    assert program(2).count("dot_general") == program(20).count("dot_general")


@pytest.mark.slow
def test_a_tensor_is_fitted_among_equals_as_it_is_alone():
    tx = scale_by_psgd_kron(0.5)
    grads = [gradients(20, seed=s)["w"] for s in range(3)]
    together, _ = trained(tx, dict(enumerate(grads)))
    alone, _ = trained(tx, {1: grads[1]})
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-2, atol=1e-3)


@cheap_for_every_form
def test_states_are_trees_like_the_parameters(make):
    params = {"w": jnp.ones((3, 2)), "n": {"b": jnp.ones(3)}}
    tx = make()
    state = tx.init(params)
    doubled = optax.tree.map_params(tx, lambda x: 2 * x, state)
    assert isinstance(doubled, PsgdState)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 2 * b),
        doubled.preconditioner._replace(bounds=()),
        state.preconditioner._replace(bounds=()),
    )
    for field in set(state.preconditioner._fields) - {"bounds"}:
        assert set(getattr(state.preconditioner, field)) == {"w", "n"}


def test_shardings_of_the_parameters_can_be_mapped_over_the_factors():
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


@cheap_for_every_form
def test_extra_arguments_of_other_transforms_are_accepted(make):
    params = {"w": jnp.ones((3, 2))}
    tx = make()
    updates, _ = jax.eval_shape(
        lambda: tx.update(params, tx.init(params), params, value=jnp.float32(1.0), unknown=3)
    )
    assert updates["w"].shape == (3, 2)


@every_form
def test_float64_leaves_are_fitted_in_float64(make):
    with jax.enable_x64(True):
        params = {"w": jnp.ones((3, 2), jnp.float64), "b": jnp.ones(3, jnp.float32)}
        grads = {"w": 1e-200 * params["w"], "b": params["b"]}
        tx = make()
        updates, state = jax.jit(tx.update)(grads, tx.init(params))
        assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)
        assert 0.3 < np.sqrt(np.mean(np.square(updates["w"]))) < 3
        kinds = jax.tree.map(lambda x: x.dtype, tx.init(params))
        assert jax.tree.map(lambda x: x.dtype, state) == kinds
