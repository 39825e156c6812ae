"""Every transform in every setting an optax user may put it in.

A row of the matrix is an entry of CASES, a column is a test. A row that a column leaves out says
why in its `whole_leaves`. The slow rows differ from a row of the default run by an option only.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.optim import (
    ROWS,
    clip_by_relative_global_norm,
    hyperball,
    partition_by_invariance,
    scale_by_psgd_kron,
    scale_by_psgd_low_rank,
    scale_by_psgd_matrix_free,
    scale_invariant_sgd,
    sgd_sai,
    track_rotation,
)

from . import conftest


class Case(NamedTuple):
    """A transform, and the one number of it that is scheduled and injected.

    Attributes:
      make: the transform, from that number and perhaps axis_name.
      number: the number's name.
      value: its value.
      whole_leaves: why shard_map may not split the leaves; empty if it may.
      newton: whether `update` needs a vector and its Hessian product.
      needs_params: whether `update` needs the parameters.
    """

    make: Callable[..., optax.GradientTransformation]
    number: str = "learning_rate"
    value: float = 0.1
    whole_leaves: str = ""
    newton: bool = False
    needs_params: bool = True


def labels(of_w, of_b):
    """Label leaves by the last key of their path, so at any depth."""
    of = {"w": of_w, "b": of_b}
    return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: of[path[-1].key], tree)


def clip(**keywords):
    return Case(functools.partial(clip_by_relative_global_norm, **keywords), "max_ratio", 0.05)


def psgd(make, mode="whitening", **keywords):
    return Case(
        functools.partial(make, mode=mode, **keywords),
        "preconditioner_learning_rate",
        whole_leaves="the factors need whole axes, the other forms the whole vector",
        newton=mode == "newton",
        needs_params=False,
    )


def on_the_sphere(inner, **keywords):
    return Case(functools.partial(hyperball, inner, **keywords))


def tracked(**keywords):
    return Case(functools.partial(track_rotation, optax.sgd(0.1, momentum=0.9), **keywords))


def partitioned(learning_rate, axis_name=None):
    encoder = scale_invariant_sgd(learning_rate, 0.1, axis_name=axis_name)
    return partition_by_invariance(encoder, optax.sgd(0.1), labels(True, False))


CASES = {
    "clip": clip(),
    "clip by labels": clip(blocks=labels("matrix", "vector")),
    "clip by rows": clip(blocks=labels(ROWS, "vector")),
    "scale_invariant_sgd": Case(functools.partial(scale_invariant_sgd, weight_decay=0.1)),
    "scale_invariant_sgd without clip": Case(
        functools.partial(scale_invariant_sgd, weight_decay=0.1, clip_factor=None)
    ),
    "scale_invariant_sgd by rows": Case(
        functools.partial(scale_invariant_sgd, weight_decay=0.1, blocks=labels(ROWS, "vector"))
    ),
    "partition": Case(partitioned),
    "sgd_sai": Case(sgd_sai),
    "sgd_sai of the paper": Case(functools.partial(sgd_sai, scaling="snr_max_normalized")),
    "sgd_sai by size": Case(functools.partial(sgd_sai, scaling="sqrt_size")),
    "hyperball of momentum SGD": on_the_sphere(optax.sgd(1.0, momentum=0.9)),
    "hyperball by rows": on_the_sphere(optax.sgd(1.0, momentum=0.9), blocks=labels(ROWS, "vector")),
    "hyperball of Muon": on_the_sphere(optax.contrib.muon(1.0))._replace(
        whole_leaves="Muon orthogonalizes whole matrices"
    ),
    "track_rotation": tracked(),
    "track_rotation by labels": tracked(blocks=labels("matrix", "vector")),
    "psgd kron": psgd(scale_by_psgd_kron),
    "psgd kron in newton mode": psgd(scale_by_psgd_kron, "newton"),
    "psgd low rank": psgd(scale_by_psgd_low_rank, rank=2),
    "psgd low rank in newton mode": psgd(scale_by_psgd_low_rank, "newton", rank=2),
    "psgd matrix free": psgd(scale_by_psgd_matrix_free),
    "psgd matrix free in newton mode": psgd(scale_by_psgd_matrix_free, "newton"),
    "psgd diagonal": psgd(scale_by_psgd_matrix_free, shape="diagonal"),
}
DEFAULT = (
    "clip by rows",
    "scale_invariant_sgd",
    "partition",
    "sgd_sai",
    "hyperball of momentum SGD",
    "track_rotation",
)


def cases(wanted=lambda case: True, default=DEFAULT):
    """Parametrize over the wanted cases; all but the `default` ones are slow tests."""
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=[] if name in default else [pytest.mark.slow])
            for name, case in CASES.items()
            if wanted(case)
        ],
    )


every_case = cases()
cheap_for_every_case = cases(default=CASES)


@pytest.fixture(autouse=True)
def _promotion(request):
    """Muon mixes dtypes, which this suite's strictness forbids."""
    muon = "Muon" in request.node.callspec.params["name"]
    with jax.numpy_dtype_promotion("standard" if muon else "strict"):
        yield


random_tree = functools.partial(conftest.random_tree, shapes=(("w", (8, 8)), ("b", (8,))))
assert_close = functools.partial(conftest.assert_close, rtol=1e-5, atol=2e-6)


def make(name, **keywords):
    case = CASES[name]
    return case.make(**{case.number: case.value} | keywords)


def updater(name, tx, placed=lambda tree: tree):
    """Return tx.update with the extra arguments that the case needs, `placed` as its leaves are."""
    if not CASES[name].newton:
        return tx.update
    vector = random_tree(77)
    hvp = jax.tree.map(lambda v: 3.0 * v, vector)
    return functools.partial(tx.update, vector=placed(vector), hvp=placed(hvp))


def train(name, tx, steps=3, update=None):
    params, state = random_tree(0), tx.init(random_tree(0))
    update = jax.jit(updater(name, tx)) if update is None else update
    for t in range(steps):
        updates, state = update(random_tree(t + 1), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@functools.cache
def reference(name):
    """Return the parameters and the state after three plain steps."""
    return train(name, make(name))


def float_leaves(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@every_case
def test_jit_traces_once_and_equals_eager(name):
    tx, traces = make(name), []

    @jax.jit
    def update(*arguments):
        traces.append(1)
        return updater(name, tx)(*arguments)

    jitted = train(name, tx, update=update)
    assert len(traces) == 1
    assert_close(jitted, train(name, tx, update=updater(name, tx)))


@cheap_for_every_case
def test_abstract_init_has_the_shapes_and_dtypes_of_the_real_one(name):
    tx = make(name)
    abstract = jax.eval_shape(tx.init, jax.eval_shape(lambda: random_tree(0)))
    concrete = tx.init(random_tree(0))
    after = jax.eval_shape(updater(name, tx), random_tree(1), concrete, random_tree(0))[1]
    assert kinds(abstract) == kinds(concrete) == kinds(after)


@every_case
def test_scan_equals_the_loop(name):
    tx = make(name)
    grads = jax.tree.map(lambda *g: jnp.stack(g), *[random_tree(t + 1) for t in range(3)])

    def step(carry, g):
        params, state = carry
        updates, state = updater(name, tx)(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (random_tree(0), tx.init(random_tree(0)))
    scanned, _ = jax.jit(lambda: jax.lax.scan(step, start, grads))()
    assert_close(scanned, reference(name))


@every_case
def test_leaves_sharded_over_eight_devices_change_nothing(name):
    """Norms are global under jit, whatever the sharding."""
    tx = make(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))

    @jax.jit
    def update(grads, state, params):
        updates, state = updater(name, tx)(grads, state, params)
        return jax.lax.with_sharding_constraint(updates, sharding), state

    params = jax.device_put(random_tree(0), sharding)
    state = tx.init(params)
    for t in range(3):
        grads = jax.device_put(random_tree(t + 1), sharding)
        updates, state = update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    assert params["w"].sharding.spec == P("data")
    assert_close((params, state), reference(name))


def scalars(state):
    """Return what a state reports, which is the same on every device."""
    return [x for x in float_leaves(state) if x.ndim == 0]


def steps_in_shard_map(name, tx, specs):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def steps(params, grads):
        state = tx.init(params)
        for g in grads:
            updates, state = updater(name, tx)(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, scalars(state)

    mapped = jax.shard_map(steps, mesh=mesh, in_specs=(specs, [specs] * 3), out_specs=(specs, P()))
    return jax.jit(mapped)(random_tree(0), [random_tree(t + 1) for t in range(3)])


@cases(lambda case: not case.whole_leaves)
def test_shard_map_with_axis_name_has_global_norms(name):
    """Local leaves, global numbers: equal to the same steps without shard_map."""
    split = P(None, "data") if "rows" in name else P("data")  # ROWS needs the first axis whole
    found = steps_in_shard_map(name, make(name, axis_name="data"), {"w": split, "b": P("data")})
    params, state = reference(name)
    assert_close(found, (params, scalars(state)))


@cases(lambda case: case.whole_leaves, default=())
def test_shard_map_with_whole_leaves_changes_nothing(name):
    params, state = reference(name)
    assert_close(steps_in_shard_map(name, make(name), P()), (params, scalars(state)))


@every_case
def test_multi_steps_equals_steps_on_the_mean_gradient(name):
    tx = make(name)
    multi = optax.MultiSteps(tx, every_k_schedule=2)
    params, state = random_tree(0), multi.init(random_tree(0))
    mean_params, mean_state = random_tree(0), tx.init(random_tree(0))
    update, mean_update = jax.jit(updater(name, multi)), jax.jit(updater(name, tx))
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps divides by an integer
        for t in range(4):
            updates, state = update(random_tree(t + 1), state, params)
            params = optax.apply_updates(params, updates)
    for t in (0, 2):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, random_tree(t + 1), random_tree(t + 2))
        updates, mean_state = mean_update(mean, mean_state, mean_params)
        mean_params = optax.apply_updates(mean_params, updates)
    assert_close(params, mean_params, rtol=1e-4)


def under_masked(tx, mask):
    return optax.masked(tx, mask, mask_compatible_extra_args=True)


def under_partition(tx, mask):
    transforms = {True: tx, False: optax.identity()}
    return optax.partition(transforms, mask, mask_compatible_extra_args=True)


@pytest.mark.parametrize("hide", [under_masked, under_partition])
@every_case
def test_hidden_leaves_count_for_nothing(name, hide):
    """Under optax.masked and optax.partition a transform acts as if it saw its leaves alone."""
    tx = make(name)
    hidden = hide(tx, {"ours": True, "theirs": False})

    def both(seed):
        return {"ours": random_tree(seed), "theirs": random_tree(seed + 50)}

    update = jax.jit(updater(name, hidden, lambda tree: {"ours": tree, "theirs": random_tree(99)}))
    params = both(0)
    state = hidden.init(params)
    for t in range(3):
        updates, state = update(both(t + 1), state, params)
        jax.tree.map(np.testing.assert_array_equal, updates["theirs"], both(t + 1)["theirs"])
        params = optax.apply_updates(params, updates)
    assert_close(params["ours"], reference(name)[0])


@every_case
def test_injected_number_equals_a_constant_and_can_change(name):
    number, value = CASES[name].number, CASES[name].value

    def factory(number):
        return make(name, **{CASES[name].number: number})

    injected = optax.inject_hyperparams(factory)(number=value)
    params, state = train(name, injected)
    assert_close(params, reference(name)[0])
    update = updater(name, injected)
    before, _ = update(random_tree(9), state, params)
    state.hyperparams["number"] = jnp.float32(0.0)
    updates, after = update(random_tree(9), state, params)
    if "track_rotation" in name:  # only reports the learning rate
        assert not np.any(jax.tree.leaves(after.inner_state.effective_learning_rate))
    elif number == "preconditioner_learning_rate":
        assert np.any(updates["w"] != before["w"])
    else:
        np.testing.assert_allclose(updates["w"], np.zeros((8, 8)), atol=1e-6)


@every_case
def test_schedule_equals_its_values(name):
    """Constant at the case's value for three steps, then 0; read at the count of steps taken."""
    value = CASES[name].value
    tx = make(name, **{CASES[name].number: lambda t: jnp.where(t < 3, value, jnp.float32(0.0))})
    params, state = train(name, tx)
    assert_close(params, reference(name)[0])
    update = updater(name, tx)
    scheduled, _ = update(random_tree(9), state, params)
    zero = make(name, **{CASES[name].number: lambda t: jnp.zeros_like(t, jnp.float32)})
    expected, _ = updater(name, zero)(random_tree(9), state, params)
    assert_close(scheduled, expected)


@every_case
def test_bfloat16_leaves_keep_their_dtype(name):
    tx = make(name)
    params = random_tree(0) | {"w": random_tree(0)["w"].astype(jnp.bfloat16)}
    grads = random_tree(1) | {"w": random_tree(1)["w"].astype(jnp.bfloat16)}
    first = tx.init(params)
    update = jax.jit(updater(name, tx))
    updates, state = update(grads, first, params)
    assert update._cache_size() == 1
    again, state = update(grads, state, params)
    assert update._cache_size() == 1
    for tree in (updates, again):
        assert jax.tree.map(lambda x: x.dtype, tree) == jax.tree.map(lambda x: x.dtype, params)
    assert kinds(state) == kinds(first)
    assert all(x.dtype == jnp.float32 for x in scalars(state))

    def widened(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    exact, _ = update(widened(grads), tx.init(widened(params)), widened(params))
    assert updates["b"].dtype == jnp.float32
    tolerance = 0.05 if CASES[name].newton or "Muon" in name else 0.01
    for k in params:
        np.testing.assert_allclose(
            np.float32(updates[k]), exact[k], rtol=0.02, atol=tolerance * np.max(np.abs(exact[k]))
        )


@every_case
def test_state_restored_by_orbax_continues_bit_for_bit(name, tmp_path):
    """The parameters are nested, so that the names of blocks hold slashes."""
    tx = make(name)
    params, grads = {"encoder": random_tree(0)}, {"encoder": random_tree(1)}
    update = jax.jit(updater(name, tx, lambda tree: {"encoder": tree}))
    _, state = update(grads, tx.init(params), params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, params))
    assert kinds(restored) == kinds(state)
    for t in (2, 3):
        updates, state = update({"encoder": random_tree(t)}, state, params)
        again, restored = update({"encoder": random_tree(t)}, restored, params)
        jax.tree.map(np.testing.assert_array_equal, (again, restored), (updates, state))


@cases(lambda case: case.needs_params, default=CASES)
def test_missing_params_get_the_message_of_optax(name):
    tx = make(name)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        tx.update(random_tree(1), tx.init(random_tree(0)))


@cheap_for_every_case
def test_integer_leaves_are_refused_by_name(name):
    params = {"w": jnp.zeros((8, 8), jnp.int32), "b": jnp.zeros(8)}
    with pytest.raises(ValueError, match="leaf w has dtype int32"):
        make(name).init(params)
