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
    hyperball,
    partition_by_invariance,
    scale_invariant_sgd,
    sgd_sai,
    sign_descent,
    track_rotation,
)

from .conftest import assert_close, assert_equal, first_update, random_tree

MOMENTUM = optax.sgd(0.1, momentum=0.9)


def numbered(tree):
    structure = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, range(structure.num_leaves))


def each_its_own(tree):
    return jax.tree.map("block {}".format, numbered(tree))


def all_but_the_last(tree):
    last = jax.tree.structure(tree).num_leaves - 1
    return jax.tree.map(lambda i: i < last, numbered(tree))


SGD = scale_invariant_sgd(0.1, 0.1)
TRANSFORMS = {
    "scale_invariant_sgd by rows": scale_invariant_sgd(0.1, 0.1, blocks=ROWS),
    "sgd_sai": sgd_sai(),
    "sign_descent": sign_descent(9, 0.1, lower=-1.0),
    "hyperball": hyperball(optax.sgd(1.0), 0.1),
    "track_rotation by labels": track_rotation(optax.sgd(0.1), 0.1, blocks=each_its_own),
    "partition": partition_by_invariance(SGD, optax.sgd(0.1), all_but_the_last),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def leaves_of(seed):
    return list(random_tree(seed, shapes=[(name, (3, 3)) for name in "abc"]).values())


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

    for nothing in ({}, {"c": None}):  # or no leaf has one
        updates, after = tx.update({"a": None, "b": None, "c": grads["c"]} | nothing, first, PARAMS)
        assert len(numbers(updates)) == (not nothing)
        assert all(np.all(np.isfinite(u)) for u in numbers(updates))
        assert jax.tree.structure(after) == jax.tree.structure(first)


@pytest.mark.parametrize("mask", [{"a": True, "b": False}, all_but_the_last])
def test_each_side_of_a_partition_equals_its_transform_alone(mask):
    a, b, c = leaves_of(0)
    params, grads = {"a": {"u": a, "v": b}, "b": c}, {"a": {"u": b, "v": 7 * c}, "b": a}
    updates, state = first_update(partition_by_invariance(SGD, MOMENTUM, mask), grads, params)
    for side, alone in (("a", SGD), ("b", MOMENTUM)):
        assert_close(updates[side], first_update(alone, grads[side], params[side])[0])
    np.testing.assert_allclose(state.encoder.param_norm, optax.tree.norm([a, b]), rtol=1e-6)


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
        (hyperball(optax.adam(1.0), 0.1, blocks=ROWS), 2),
        (track_rotation(MOMENTUM, blocks=each_its_own), 1),
        (partition_by_invariance(sgd_sai(), MOMENTUM, all_but_the_last), 1),
        (optax.chain(hyperball(MOMENTUM, 0.1), optax.scale(1.0)), 1),
    ],
)
def test_map_params_finds_leaves_shaped_like_the_parameters(tx, copies):
    """So that a state is sharded as its parameters are, and its numbers are on every device."""
    state = tx.init(PARAMS)
    marked = optax.tree.map_params(tx, lambda x: -x - 1, state)
    pairs = zip(numbers(state), numbers(marked), strict=True)
    assert [a.shape for a, b in pairs if np.any(a != b)] == [(3, 3)] * 3 * copies
    others = optax.tree.map_params(tx, lambda x: None, state, transform_non_params=lambda x: "all")
    assert set(numbers(others)) == {"all"}
