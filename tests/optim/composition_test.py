"""Every transform in every setting an optax user may put it in.

A row of the matrix is an entry of CASES, a column is a test; all but a few rows are slow tests.
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
    clip_by_relative_unit_norm,
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
    make: Callable[..., optax.GradientTransformation]  # takes the number and perhaps axis_name
    number: str = "learning_rate"  # is scheduled and injected
    value: float = 0.1
    whole_leaves: bool = False  # whether shard_map may not split them
    newton: bool = False  # whether `update` needs a vector and its Hessian product
    needs_params: bool = True


def labels(of_w, of_b):
    """Label leaves by the last key of their path, so at any depth."""
    of = {"w": of_w, "b": of_b}
    return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: of[path[-1].key], tree)


def psgd(make, mode="whitening", **keywords):
    return Case(
        functools.partial(make, mode=mode, **keywords),
        "preconditioner_learning_rate",
        whole_leaves=True,  # factors of whole axes, or of the whole vector
        newton=mode == "newton",
        needs_params=False,
    )


def on_the_sphere(inner, whole_leaves=False, **keywords):
    return Case(functools.partial(hyperball, inner, **keywords), whole_leaves=whole_leaves)


def partitioned(learning_rate, axis_name=None):
    encoder = scale_invariant_sgd(learning_rate, 0.1, blocks=ROWS, axis_name=axis_name)
    return partition_by_invariance(encoder, optax.sgd(0.1), labels(True, False))


CASES = {
    "clip by rows": Case(
        functools.partial(clip_by_relative_global_norm, blocks=labels(ROWS, "vector")),
        "max_ratio",
        0.05,
    ),
    "clip by units": Case(
        clip_by_relative_unit_norm, "max_ratio", 0.05, whole_leaves="the axes of a unit stay whole"
    ),
    "scale_invariant_sgd": Case(functools.partial(scale_invariant_sgd, weight_decay=0.1)),
    "partition by rows": Case(partitioned),
    "sgd_sai": Case(sgd_sai),
    "sgd_sai of the paper": Case(functools.partial(sgd_sai, scaling="snr_max_normalized")),
    "hyperball of momentum SGD": on_the_sphere(optax.sgd(1.0, momentum=0.9)),
    "hyperball by rows": on_the_sphere(optax.sgd(1.0, momentum=0.9), blocks=labels(ROWS, "vector")),
    "hyperball of Muon": on_the_sphere(optax.contrib.muon(1.0), whole_leaves=True),
    "track_rotation": Case(functools.partial(track_rotation, optax.sgd(0.1, momentum=0.9))),
    "psgd kron": psgd(scale_by_psgd_kron),
    "psgd kron in newton mode": psgd(scale_by_psgd_kron, "newton"),
    "psgd low rank in newton mode": psgd(scale_by_psgd_low_rank, "newton", rank=2),
    "psgd matrix free in newton mode": psgd(scale_by_psgd_matrix_free, "newton"),
    "psgd diagonal": psgd(scale_by_psgd_matrix_free, shape="diagonal"),
}
DEFAULT = ("partition by rows", "hyperball of momentum SGD")
CHEAP = (*DEFAULT, "sgd_sai", "track_rotation")


def cases(wanted=lambda case: True, default=DEFAULT):
    """Parametrize over the wanted cases; all but the `default` ones are slow tests."""
    names = [name for name, case in CASES.items() if wanted(case)]
    slow = {name: [] if name in default else [pytest.mark.slow] for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=slow[n]) for n in names])


every_case = cases()


@pytest.fixture(autouse=True)
def _promotion(request):
    """Muon mixes dtypes, which this suite's strictness forbids."""
    muon = "Muon" in request.node.callspec.params["name"]
    with jax.numpy_dtype_promotion("standard" if muon else "strict"):
        yield


random_tree = functools.partial(conftest.random_tree, shapes=(("w", (8, 8)), ("b", (8,))))
assert_close = functools.partial(conftest.assert_close, rtol=1e-5, atol=2e-6)
STEPS = 2


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


def train(tx, update, placed=lambda tree: tree):
    params = placed(random_tree(0))
    state = tx.init(params)
    for t in range(STEPS):
        updates, state = update(placed(random_tree(t + 1)), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@functools.cache
def jitted(name):
    return jax.jit(updater(name, make(name)))


@functools.cache
def reference(name):
    """Return the parameters and the state after plain steps."""
    return train(make(name), jitted(name))


def scalars(state):
    """Return what a state reports, which is the same on every device."""
    leaves = jax.tree.leaves(state)
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim == 0]


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@every_case
def test_jit_traces_once_and_equals_eager(name):
    reference(name)
    assert jitted(name)._cache_size() == 1
    tx = make(name)
    arguments = random_tree(1), tx.init(random_tree(0)), random_tree(0)
    assert_close(jitted(name)(*arguments), updater(name, tx)(*arguments))


@cases(default=(*CHEAP, "psgd kron"))
def test_abstract_init_has_the_kinds_of_the_real_one(name):
    tx = make(name)
    abstract = jax.eval_shape(tx.init, jax.eval_shape(lambda: random_tree(0)))
    concrete = tx.init(random_tree(0))
    after = jax.eval_shape(updater(name, tx), random_tree(1), concrete, random_tree(0))[1]
    assert kinds(abstract) == kinds(concrete) == kinds(after)


@cases(default=("sgd_sai",))
def test_scan_equals_the_loop(name):
    tx = make(name)
    grads = jax.tree.map(lambda *g: jnp.stack(g), *[random_tree(t + 1) for t in range(STEPS)])

    def step(carry, g):
        params, state = carry
        updates, state = updater(name, tx)(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (random_tree(0), tx.init(random_tree(0)))
    scanned, _ = jax.jit(lambda: jax.lax.scan(step, start, grads))()
    assert_close(scanned, reference(name))


@cases(default=("partition by rows",))
def test_leaves_sharded_over_devices_change_nothing(name):
    """Norms are global under jit, whatever the sharding."""
    tx = make(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))

    @jax.jit
    def update(grads, state, params):
        updates, state = updater(name, tx)(grads, state, params)
        return jax.lax.with_sharding_constraint(updates, sharding), state

    params, state = train(tx, update, placed=lambda tree: jax.device_put(tree, sharding))
    assert params["w"].sharding.spec == P("data")
    assert_close((params, state), reference(name))


@every_case
def test_steps_in_shard_map_equal_those_outside(name):
    """Local leaves and global numbers, by the name of the axis; or whole leaves on every device."""
    whole = CASES[name].whole_leaves
    tx = make(name) if whole else make(name, axis_name="data")
    split = P(None, "data") if "rows" in name else P("data")  # ROWS needs the first axis whole
    specs = P() if whole else {"w": split, "b": P("data")}

    def steps(params, grads):
        state = tx.init(params)
        for g in grads:
            updates, state = updater(name, tx)(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, scalars(state)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    ins, outs = (specs, [specs] * STEPS), (specs, P())
    mapped = jax.jit(jax.shard_map(steps, mesh=mesh, in_specs=ins, out_specs=outs))
    found = mapped(random_tree(0), [random_tree(t + 1) for t in range(STEPS)])
    params, state = reference(name)
    assert_close(found, (params, scalars(state)))


@cases(default=("partition by rows",))
def test_multi_steps_equals_a_step_on_the_mean_gradient(name):
    multi = optax.MultiSteps(make(name), every_k_schedule=2)
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps divides by an integer
        params, _ = train(multi, jax.jit(updater(name, multi)))
    start = random_tree(0)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, random_tree(1), random_tree(2))
    updates, _ = jitted(name)(mean, make(name).init(start), start)
    assert_close(params, jax.tree.map(jnp.add, start, updates), rtol=1e-4)


@pytest.mark.parametrize("hide", ["masked", "partition"])
@every_case
def test_hidden_leaves_count_for_nothing(name, hide):
    """A transform acts as if it saw its leaves alone."""
    tx = make(name) if hide == "masked" else {True: make(name), False: optax.identity()}
    mask, theirs = {"ours": True, "theirs": False}, random_tree(99)
    hidden = getattr(optax, hide)(tx, mask, mask_compatible_extra_args=True)

    def both(tree):
        return {"ours": tree, "theirs": theirs}

    params, _ = train(hidden, jax.jit(updater(name, hidden, both)), placed=both)
    assert_close(params["ours"], reference(name)[0])
    assert_close(params["theirs"], jax.tree.map(lambda x: (1 + STEPS) * x, theirs))


def assert_number_is_zero(name, updates, state):
    """Assert that a third step was taken with 0 for the number of the case."""
    if "track_rotation" in name:  # only reports the learning rate
        assert not np.any(jax.tree.leaves(state.effective_learning_rate))
    elif CASES[name].number == "preconditioner_learning_rate":
        params, state = reference(name)
        assert np.any(updates["w"] != jitted(name)(random_tree(9), state, params)[0]["w"])
    else:
        np.testing.assert_allclose(updates["w"], np.zeros((8, 8)), atol=1e-6)


@cases(default=("partition by rows", "track_rotation"))
@pytest.mark.parametrize("injected", [True, False])
def test_number_may_be_injected_or_read_at_the_count_of_steps(name, injected):
    number, value = CASES[name].number, CASES[name].value
    if injected:
        tx = optax.inject_hyperparams(lambda x: make(name, **{number: x}))(x=value)
    else:
        tx = make(name, **{number: lambda t: jnp.where(t < STEPS, value, jnp.float32(0.0))})
    update = jax.jit(updater(name, tx))
    params, state = train(tx, update)
    assert_close(params, reference(name)[0])
    if injected:
        state.hyperparams["x"] = jnp.float32(0.0)
    updates, state = update(random_tree(9), state, params)
    assert_number_is_zero(name, updates, state.inner_state if injected else state)


@cases(default=CHEAP)
def test_bfloat16_leaves_keep_their_dtype(name):
    tx = make(name)

    def narrow(tree):
        return tree | {"w": tree["w"].astype(jnp.bfloat16)}

    params, grads = narrow(random_tree(0)), narrow(random_tree(1))
    first, update = tx.init(params), jax.jit(updater(name, tx))
    updates, state = update(grads, first, params)
    assert kinds((updates, state)) == kinds((params, first))
    assert all(x.dtype == jnp.float32 for x in scalars(state))
    wide_grads, wide = (jax.tree.map(lambda x: x.astype(float), t) for t in (grads, params))
    exact, _ = jitted(name)(wide_grads, tx.init(wide), wide)
    tolerance = 0.05 if CASES[name].newton or "Muon" in name else 0.01
    for k in params:
        np.testing.assert_allclose(
            np.float32(updates[k]), exact[k], rtol=0.02, atol=tolerance * np.max(np.abs(exact[k]))
        )


@every_case
def test_state_restored_by_orbax_continues_bit_for_bit(name, tmp_path):
    """The parameters are nested, so that the names of blocks hold slashes."""
    tx = make(name)

    nested = functools.partial(dict.fromkeys, ("encoder",))
    update = jax.jit(updater(name, tx, nested))
    params, state = train(tx, update, placed=nested)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, params))
    assert kinds(restored) == kinds(state)
    found, wanted = (update(nested(random_tree(9)), s, params) for s in (restored, state))
    conftest.assert_equal(found, wanted)


@cases(lambda case: case.needs_params, default=CASES)
def test_missing_params_get_the_message_of_optax(name):
    tx = make(name)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        tx.update(random_tree(1), tx.init(random_tree(0)))


@cases(default=CASES)
def test_integer_leaves_are_refused_by_name(name):
    params = {"w": jnp.zeros((8, 8), jnp.int32), "b": jnp.zeros(8)}
    with pytest.raises(ValueError, match="leaf w has dtype int32"):
        make(name).init(params)
