"""The optimizers of the table, for encoder, head and a group by pattern, from a config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from sibert_jax import optim
from sibert_jax.checkpoint import restore_params
from sibert_jax.train.config import run_config
from sibert_jax.train.optimizer import build_optimizer
from sibert_jax.train.optimizer_table import (
    DIRECTIONS,
    TABLE,
    averaged_params,
    make_optimizer,
    parse_options,
)
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import Shapes, bare_task
from tests.train.started import Started, StopAfter, mesh_of

ETA, DECAY = 0.05, 0.02


def is_matrix(tree):
    def decays(path, _):
        return not path[-1].key.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(decays, tree)


def decayed(direction):
    return optax.chain(direction, optax.add_decayed_weights(DECAY, is_matrix), optax.scale(-ETA))


def tree_of(token, query, out, up, bias):
    attention = {"query": {"kernel": query}, "out": {"kernel": out}}
    layers = {"attention": attention, "ffn": {"up": {"kernel": up, "bias": bias}}}
    return {"embed": {"token": token}, "layers": layers}


def small(seed: int):
    """Leaves of every kind: a table, a matrix into heads and one out of them, another, a bias."""
    rng = np.random.default_rng(seed)
    shapes = (6, 4), (2, 4, 2, 2), (2, 2, 2, 4), (2, 4, 8), (2, 8)
    return tree_of(*(jnp.asarray(0.1 * rng.normal(size=s), jnp.float32) for s in shapes))


def matrix_axes(tree, tables=True):
    one = contrib.MuonDimensionNumbers
    token = one(0, 1) if tables else None
    return tree_of(token, one(1, (2, 3)), one((1, 2), 3), one(1, 2), None)


muon_dimensions = functools.partial(matrix_axes, tables=False)

# Name -> options, and the same transform made of optax's and our public functions.
SAME = {
    "scale_invariant_sgd": ("", lambda: optim.scale_invariant_sgd(ETA, DECAY, 4.0)),
    "equilibrium_sgd": ("memory=3", lambda: optim.equilibrium_sgd(ETA, DECAY, memory=3)),
    "orthogonalized_sgd": ("memory=3", lambda: optax.chain(
        optim.scale_by_orthogonalization(axes=muon_dimensions),
        optim.equilibrium_sgd(ETA, DECAY, memory=3))),
    "sgd_sai": ("scaling=sqrt_size", lambda: optim.sgd_sai(
        ETA, weight_decay=DECAY, scaling="sqrt_size")),
    "hyperball": ("inner=adam", lambda: optim.hyperball(optax.adam(1.0), ETA)),
    "psgd_kron": ("update_every=2", lambda: decayed(optim.scale_by_psgd_kron(update_every=2))),
    "psgd_low_rank": ("rank=2", lambda: decayed(optim.scale_by_psgd_low_rank(rank=2))),
    "psgd_matrix_free": ("", lambda: decayed(optim.scale_by_psgd_matrix_free())),
    "unit_rms": ("units=input, power=0.75", lambda: decayed(
        optim.scale_by_unit_rms("input", 0.75, axes=matrix_axes))),
    "sinkgd": ("num_passes=3", lambda: decayed(optim.scale_by_sinkhorn(3, axes=matrix_axes))),
    "swan": ("num_steps=4", lambda: decayed(optim.scale_by_whitening(4, axes=matrix_axes))),
    "orthogonalized": ("", lambda: decayed(
        optim.scale_by_orthogonalization(axes=muon_dimensions))),
    "factored_rms": ("", lambda: decayed(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2))),
    "row_clipped_sgd": ("row_clip=0.1", lambda: optax.chain(
        optax.add_decayed_weights(DECAY, is_matrix), optax.scale(-ETA),
        optim.clip_by_relative_unit_norm(0.1, axes=matrix_axes))),
    "sgd": ("", lambda: decayed(optax.identity())),
    "momentum": ("nesterov=True", lambda: optax.chain(
        optax.add_decayed_weights(DECAY, is_matrix), optax.sgd(ETA, 0.9, nesterov=True))),
    "sign_sgd": ("", lambda: optax.chain(
        optax.add_decayed_weights(DECAY, is_matrix), optax.sign_sgd(ETA))),
    "adamw": ("b2=0.98, eps=1e-6", lambda: optax.adamw(
        ETA, b2=0.98, eps=1e-6, weight_decay=DECAY, mask=is_matrix)),
    "lamb": ("", lambda: optax.partition(
        {True: optax.lamb(ETA, weight_decay=DECAY), False: optax.adam(ETA, eps=1e-6)}, is_matrix)),
    "lars": ("", lambda: optax.lars(
        ETA, weight_decay=DECAY, weight_decay_mask=is_matrix, trust_ratio_mask=is_matrix)),
    "lion": ("b2=0.95", lambda: optax.lion(ETA, b2=0.95, weight_decay=DECAY, mask=is_matrix)),
    "adafactor": ("factored=False", lambda: decayed(optax.chain(
        optax.adafactor(None, factored=False), optax.scale(-1.0)))),
    "muon": ("ns_steps=3", lambda: contrib.muon(
        ETA, ns_steps=3, weight_decay=DECAY, weight_decay_mask=is_matrix,
        muon_weight_dimension_numbers=muon_dimensions)),
    "ademamix": ("alpha=3", lambda: contrib.ademamix(
        ETA, alpha=3, weight_decay=DECAY, mask=is_matrix)),
    "schedule_free_sgd": ("", lambda: contrib.schedule_free_sgd(ETA, weight_decay=DECAY)),
    "schedule_free_adamw": ("b1=0.95", lambda: contrib.schedule_free_adamw(
        ETA, b1=0.95, weight_decay=DECAY)),
}  # fmt: skip


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_an_output_bias_moves_at_its_rate_whatever_its_norm(name):
    params = {"output_bias": jnp.full(1000, -9.0)}  # log frequencies
    grads = {"output_bias": jnp.ones(1000)}
    tx = make_optimizer(name, {}, optax.constant_schedule(ETA), DECAY, mask=is_matrix)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert np.abs(updates["output_bias"]).max() <= ETA * (1 + 1e-5)


@pytest.fixture
def keys(config):
    """Constant rates, one layer."""
    config.model.depth = 1
    config.optim.update(eta_lambda=0.0, learning_rate=ETA, weight_decay=DECAY, schedule="constant")
    return config


def built(config):
    """The optimizer of a config, parameters and gradients."""
    run = run_config(resolve(config))
    shapes = Shapes.of(run, mesh_of((1, 1, 1)), bare_task(run))
    optimizer = build_optimizer(run.optim, run.train.num_steps, shapes.mask)
    rng = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes.params)
        for _ in range(2)
    )
    return optimizer, params, grads


def two_updates(tx, params, grads):
    update = jax.jit(tx.update)
    first, state = update(grads, tx.init(params), params)
    return first, update(grads, state, jax.tree.map(jnp.add, params, first))[0]


def one_update(tx, grads, params):
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, params)


def test_every_row_of_the_table_is_compared():
    assert SAME.keys() == TABLE.keys()


DEFAULT = ("scale_invariant_sgd", "hyperball", "momentum", "adamw", "lamb", "muon")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in DEFAULT)) for n in SAME]
)
def test_it_is_the_transform_that_it_names(name):
    text, same = SAME[name]
    options = parse_options("optim", name, text)
    decay = 0.0 if name == "hyperball" else DECAY
    tx = make_optimizer(
        name, options, optax.constant_schedule(ETA), decay, mask=is_matrix, clip_factor=4.0
    )
    found, wanted = (two_updates(tx, small(0), small(1)) for tx in (tx, same()))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8), found, wanted)
    assert optax.tree.vdot(found[0], small(1)) < 0, "the first step goes uphill"


@pytest.mark.parametrize("inner", DIRECTIONS)
def test_every_direction_takes_matrices_and_vectors(inner):
    tx = optim.hyperball(DIRECTIONS[inner](), ETA)
    params = small(0) | {"norm": {"scale": jnp.ones(4)}}
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        updates, _ = jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


def test_head_and_a_group_by_pattern_get_their_own(keys):
    keys.optim.name = "sgd"
    keys.optim.head.update(name="lion", learning_rate=0.5, weight_decay=0.0, schedule="constant")
    keys.optim.other.update(
        pattern="embed/", name="sign_sgd", learning_rate=0.25, weight_decay=0.0, schedule="constant"
    )
    optimizer, params, grads = built(keys)
    updates, _ = one_update(optimizer.tx, grads, params)
    head = updates["head"]["transform"]["kernel"]
    np.testing.assert_allclose(head, -0.5 * jnp.sign(grads["head"]["transform"]["kernel"]))
    table = updates["encoder"]["embed"]["token"]
    np.testing.assert_allclose(table, -0.25 * jnp.sign(grads["encoder"]["embed"]["token"]))
    assert not optimizer.measured["encoder"]["embed"]["token"]
    assert optimizer.measured["encoder"]["stem"]["kernel"]


def test_same_is_the_encoders_optimizer_over_all_parameters(keys):
    keys.optim.update(name="adamw", max_grad_norm=1.0)
    keys.optim.head.name = "same"
    optimizer, params, grads = built(keys)
    same = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(ETA, weight_decay=DECAY, mask=is_matrix)
    )
    found, wanted = (two_updates(tx, params, grads) for tx in (optimizer.tx, same))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_schedule_free_run_is_evaluated_at_its_average(keys):
    keys.optim.name = "schedule_free_sgd"
    optimizer, params, grads = built(keys)

    updates, state = one_update(optimizer.tx, grads, params)
    alone = contrib.schedule_free_sgd(ETA, weight_decay=DECAY)
    _, alone_state = one_update(alone, grads["encoder"], params["encoder"])
    params = optax.apply_updates(params, updates)
    average = contrib.schedule_free_eval_params(alone_state, params["encoder"])
    wanted = {"encoder": average, "head": params["head"]}
    jax.tree.map(np.testing.assert_array_equal, averaged_params(state, params), wanted)


@pytest.mark.slow
def test_a_schedule_free_run_hands_on_its_average_and_resumes(plain, train_one, tmp_path):
    plain.optim.name, plain.train.num_steps, plain.train.eval_batches = "schedule_free_sgd", 4, 1
    whole = train_one(plain, tmp_path / "whole")
    train_one(plain, tmp_path / "cut", stop=StopAfter(2))
    resumed = train_one(plain, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    found, _ = restore_params(tmp_path / "cut", jax.eval_shape(lambda: whole.params))
    average = averaged_params(whole.opt_state, whole.params)
    jax.tree.map(np.testing.assert_array_equal, found, average)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_it_trains_and_is_measured(keys, name):
    rates = {"scale_invariant_sgd": 0.5, "sgd_sai": 0.1, "sgd": 0.1, "lars": 1.0, "momentum": 0.1}
    keys.optim.update(name=name, options=SAME[name][0], learning_rate=rates.get(name, 1e-2))
    if name == "hyperball":
        keys.optim.weight_decay = 0.0
    keys.train.log_every_steps = 1
    run = Started(keys)
    losses = []
    for steps in (1, 6):
        _, report = run.steps([0] * steps)
        losses.append(float(report.window.sums["loss"]))
    assert losses[1] < losses[0]
    assert report.window.sums["rotation"] > 0
