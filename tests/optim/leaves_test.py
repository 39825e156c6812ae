"""Names and kinds of leaves: any tree, boxes, None, empty leaves, other structures.

Every transform of this package but PSGD; those that wrap another one wrap momentum SGD.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sibert_jax.optim import (
    ROWS,
    clip_by_relative_global_norm,
    hyperball,
    partition_by_invariance,
    scale_invariant_sgd,
    sgd_sai,
    track_rotation,
)

from .conftest import assert_close, assert_equal, first_update, random_tree

MOMENTUM = optax.sgd(0.1, momentum=0.9)


def each_its_own(tree):
    structure = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, [f"block {i}" for i in range(structure.num_leaves)])


def all_but_the_last(tree):
    structure = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, [True] * (structure.num_leaves - 1) + [False])


SGD = scale_invariant_sgd(0.1, 0.1)
TRANSFORMS = {
    "scale_invariant_sgd by rows": scale_invariant_sgd(0.1, 0.1, blocks=ROWS),
    "sgd_sai": sgd_sai(),
    "hyperball": hyperball(optax.sgd(1.0), 0.1),
    "track_rotation by labels": track_rotation(optax.sgd(0.1), 0.1, blocks=each_its_own),
    "partition": partition_by_invariance(SGD, optax.sgd(0.1), all_but_the_last),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def leaves_of(seed):
    return list(random_tree(seed, shapes=(("a", (2, 3)), ("b", (3, 3)), ("c", (4, 3)))).values())


def step(tx, make):
    """Take a step on trees that `make` builds of three leaves; return the updates and the state."""
    return first_update(tx, make(*leaves_of(1)), make(*leaves_of(0)))


class Attention(NamedTuple):
    query: jax.Array
    key: jax.Array
    value: jax.Array


TREES = {
    "query, key, value": lambda a, b, c: {"attention": Attention(a, b, c)},
    "keys": lambda a, b, c: {"params": {"idx": a, "value": b}, "value": {"value": c}},
    "variables": lambda a, b, c: nnx.State({"p": {"k": nnx.Param(a), "l": nnx.Param(b)},
                                            "q": nnx.Param(c)}),
    "a slash": lambda a, b, c: {"a": {"b": {"c": a}, "b/c": b}, "a/b/c": c},
    "positions": lambda a, b, c: [a, (b, c)],
}  # fmt: skip


def plain(a, b, c):
    return {"a": a, "b": b, "c": c}


numbers = jax.tree.leaves
PARAMS, GRADS = plain(*leaves_of(0)), plain(*leaves_of(1))


@every_transform
def test_names_and_nodes_of_leaves_change_nothing(name):
    tx = TRANSFORMS[name]
    wanted, wanted_state = step(tx, plain)
    for tree in TREES.values():
        updates, state = step(tx, tree)
        assert_equal(updates, tree(*wanted.values()))
        assert len(numbers(state)) == len(numbers(wanted_state))


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ("query, key, value", ["attention/key", "attention/query", "attention/value"]),
        ("variables", ["p/k", "p/l", "q"]),
        ("a slash", ["['a']['b']['c']", "['a']['b/c']", "['a/b/c']"]),
    ],
)
def test_block_is_called_by_the_path_of_its_leaf(tree, names):
    state = hyperball(optax.sgd(1.0), 0.1).init(TREES[tree](*leaves_of(0)))
    assert sorted(state.radius) == names


@every_transform
def test_parameters_may_be_boxed_in_init_and_bare_in_update(name):
    """As Flax's optimizers call them."""
    tx = TRANSFORMS[name]
    state = nnx.as_pure(tx.init(jax.tree.map(nnx.Param, PARAMS)))
    updates, _ = tx.update(GRADS, state, PARAMS)
    wanted, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_equal(updates, wanted)


@every_transform
def test_leaf_without_gradient_stays_and_counts_for_nothing(name):
    """What optax.sgd does: the update is None, and the others are as if it were not there."""
    tx = TRANSFORMS[name]
    grads, first = GRADS | {"a": None}, tx.init(PARAMS)
    updates, state = tx.update(grads, first, PARAMS)
    again, state = tx.update(grads, state, PARAMS)
    assert updates["a"] is again["a"] is None
    assert jax.tree.structure(state) == jax.tree.structure(first)
    assert not any(np.any(np.isnan(x)) for x in numbers((updates, state)))
    without = {k: PARAMS[k] for k in "bc"}
    wanted, _ = tx.update({k: grads[k] for k in "bc"}, tx.init(without), without)
    assert_close({k: updates[k] for k in "bc"}, wanted, rtol=1e-5)


@every_transform
def test_none_may_stand_for_a_subtree_and_for_everything(name):
    tx = TRANSFORMS[name]
    a, b, c = leaves_of(0)
    params, gradient = {"n": {"a": a, "b": b}, "c": c}, leaves_of(1)[2]
    state = tx.init(params)
    for nothing in ({"n": None}, {"n": {"a": None, "b": None}}):
        for leaf in (None, gradient):
            updates, after = tx.update(nothing | {"c": leaf}, state, params)
            assert len(numbers(updates)) == (leaf is not None)
            assert all(np.all(np.isfinite(u)) for u in numbers(updates))
            assert jax.tree.structure(after) == jax.tree.structure(state)


def test_moving_leaves_of_a_block_keep_their_joint_norm():
    tx = hyperball(optax.sgd(1.0), 0.2, blocks="all")
    updates, _ = tx.update(GRADS | {"a": None}, tx.init(PARAMS), PARAMS)
    before = {k: PARAMS[k] for k in "bc"}
    after = {k: PARAMS[k] + updates[k] for k in "bc"}
    np.testing.assert_allclose(optax.tree.norm(after), optax.tree.norm(before), rtol=1e-6)
    assert optax.tree.norm({k: updates[k] for k in "bc"}) > 0.1


def test_sgd_sai_keeps_the_average_of_a_leaf_without_gradient():
    _, state = first_update(sgd_sai(), GRADS, PARAMS)
    _, after = sgd_sai().update(GRADS | {"a": None}, state, PARAMS)
    assert_equal((after.momentum["a"], after.scale["a"]), (state.momentum["a"], state.scale["a"]))


@every_transform
def test_empty_leaves_change_nothing(name):
    tx = TRANSFORMS[name]
    empty = {"0": jnp.zeros((0, 3)), "1": jnp.zeros((3, 0))}
    alone, _ = step(tx, lambda *leaves: empty)
    assert jax.tree.map(jnp.shape, alone) == jax.tree.map(jnp.shape, empty)
    updates, state = step(tx, lambda *leaves: empty | plain(*leaves))
    assert not any(np.any(np.isnan(x)) for x in numbers((updates, state)))
    wanted, _ = step(tx, plain)
    assert updates.pop("0").shape == (0, 3)
    assert updates.pop("1").shape == (3, 0)
    assert_close(updates, wanted)


@every_transform
def test_extra_arguments_are_accepted_another_structure_is_not(name):
    tx = optax.chain(TRANSFORMS[name], optax.scale(1.0))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1.0, loss_fn=None)
    assert_equal(updates, first_update(tx, GRADS, PARAMS)[0])
    with pytest.raises(ValueError, match="do not have the structure of the parameters"):
        tx.update({"a": PARAMS["a"]}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: hyperball(inner, 0.1),
        lambda inner: track_rotation(inner),
        lambda inner: partition_by_invariance(inner, optax.sgd(0.1), all_but_the_last),
        lambda inner: partition_by_invariance(optax.sgd(0.1), inner, all_but_the_last),
    ],
)
def test_extra_arguments_reach_the_inner_transform_divided(wrap):
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append(extra_args | {"structure": jax.tree.structure(updates)})
        return updates, state

    tx = wrap(optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))
    tx.update(GRADS, tx.init(PARAMS), PARAMS, value=3.0, vector=plain(*leaves_of(2)))
    (found,) = seen
    assert found["value"] == 3.0
    assert jax.tree.structure(found["vector"]) == found["structure"]


@pytest.mark.parametrize(
    ("tx", "copies"),
    [
        (scale_invariant_sgd(0.1, 0.1, blocks={"a": "x", "b": "x", "c": ROWS}), 0),
        (sgd_sai(), 1),
        (hyperball(optax.adam(1.0), 0.1), 2),
        (hyperball(MOMENTUM, 0.1, blocks=ROWS), 1),
        (track_rotation(MOMENTUM, blocks=each_its_own), 1),
        (partition_by_invariance(sgd_sai(), MOMENTUM, all_but_the_last), 1),
        (optax.chain(hyperball(MOMENTUM, 0.1), optax.scale(1.0)), 1),
    ],
)
def test_map_params_finds_leaves_shaped_like_the_parameters(tx, copies):
    """So that a state is sharded as its parameters are, and its numbers are on every device."""
    state = tx.init(PARAMS)
    shapes = sorted(x.shape for x in PARAMS.values())
    marked = optax.tree.map_params(tx, lambda x: -x - 1, state)
    changed = [
        a.shape
        for a, b in zip(numbers(state), numbers(marked), strict=True)
        if not np.array_equal(a, b)
    ]
    assert sorted(changed) == sorted(shapes * copies)
    others = optax.tree.map_params(tx, lambda x: None, state, transform_non_params=lambda x: "all")
    assert set(numbers(others)) == {"all"}


@pytest.mark.parametrize(
    "labels", [{"a": 0, "b": False, "c": "x"}, {"a": np.int32(2), "b": 1, "c": True}]
)
def test_labels_of_any_allowed_kind_are_kept_apart(labels):
    assert len(clip_by_relative_global_norm(0.1, blocks=labels).init(PARAMS).ratio) == 3
