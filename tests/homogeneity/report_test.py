"""Bases, blocks, labels, tables: what a report says of a function whose answer is known."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.homogeneity import analyse

SIZE = 5
FORMS = st.lists(
    st.dictionaries(st.integers(0, SIZE - 1), st.integers(-3, 3), max_size=SIZE), max_size=6
)


def report_of(forms, size):
    """Analyze Π wᵢ^kᵢ for each form Σ kᵢ·aᵢ: its degree, which must be 0."""

    def fn(w):
        return [1.0, *(math.prod(w[i] ** k for i, k in form.items()) for form in forms)]

    return analyse(fn, [jax.ShapeDtypeStruct((), jnp.float32)] * size)


def blocks_of(forms, size):
    return [tuple(map(int, block)) for block in report_of(forms, size).blocks()]


def matrix(forms):
    return np.array([[form.get(i, 0) for i in range(SIZE)] for form in forms]).reshape(-1, SIZE)


def rank(rows):
    return np.linalg.matrix_rank(rows.astype(float)) if len(rows) else 0


@settings(max_examples=20, database=None)
@given(FORMS)
def test_symmetries_are_a_basis_of_all_solutions(forms):
    symmetries = report_of(forms, SIZE).symmetries()
    basis = [{int(name): k for name, k in found.items()} for found in symmetries]
    vectors = matrix(basis)
    assert not np.any(matrix(forms) @ vectors.T)
    assert len(basis) == SIZE - rank(matrix(forms)) == rank(vectors)


@settings(max_examples=20, database=None)
@given(FORMS)
def test_blocks_are_minimal_disjoint_solutions(forms):
    blocks = blocks_of(forms, SIZE)
    subsets = [frozenset(i for i in range(SIZE) if bits >> i & 1) for bits in range(1, 2**SIZE)]
    solutions = {
        subset
        for subset in subsets
        if all(sum(form.get(i, 0) for i in subset) == 0 for form in forms)
    }
    assert all(frozenset(block) in solutions for block in blocks)
    covered = [i for block in blocks for i in block]
    assert len(covered) == len(set(covered))
    for block in blocks:
        assert not any(subset < frozenset(block) for subset in solutions)
    assert not any(subset.isdisjoint(covered) for subset in solutions)


def fn(p):
    unit = p["a"] / jnp.linalg.norm(p["a"])
    ratio = (p["b"] @ p["c"]) / (p["b"] @ p["d"])
    return unit @ ratio + jnp.tanh(p["head"])


PARAMS = {name: jnp.ones((2, 2)) for name in ("a", "b", "c", "d", "head")}


def test_symmetries_blocks_labels_and_mask_agree():
    report = analyse(fn, PARAMS)
    # a is normalized away, b cancels, c = d, head = 0.
    assert report.symmetries() == [{"a": 1}, {"b": 1}, {"c": 1, "d": 1}]
    assert report.blocks() == [("a",), ("b",), ("c", "d")]
    assert report.block_labels() == {
        "a": "block_0", "b": "block_1", "c": "block_2", "d": "block_2", "head": "not_invariant",
    }  # fmt: skip
    mask = report.invariant_mask()
    assert mask == {"a": True, "b": True, "c": True, "d": True, "head": False}
    assert report.is_invariant(mask)
    assert not report.is_invariant()


def test_every_output_counts_and_has_its_own_degree():
    report = analyse(lambda p: (p["a"] @ p["b"], {"square": p["b"] ** 2, "0": 0.0}), PARAMS)
    assert report.degree() == (2, {"square": 2, "0": 0})
    assert str(report.degrees[0]) == "a + b"
    assert report.symmetries() == [{"c": 1}, {"d": 1}, {"head": 1}]  # not used at all


def test_table_lists_tensors_between_modules():
    def first(w):
        with jax.named_scope("first"):
            return jnp.square(w) * 3.0

    def second(w):
        with jax.named_scope("second"):
            return jnp.sqrt(w)

    report = analyse(lambda w: second(first(w)), jnp.ones(3))
    between, inside = report.table().splitlines(), report.table(inside=True).splitlines()
    assert between[0] == "| module | operation | tensor | degree | line |"
    assert [row.split(" | ")[:4] for row in between[2:]] == [["| first", "mul", "float32[3]", "2"]]
    assert [row.split(" | ")[1] for row in inside[2:]] == ["square", "mul", "sqrt"]
    assert between[2].split(" | ")[4].startswith(__file__)


class Attention(NamedTuple):
    query: jax.Array
    key: jax.Array
    value: jax.Array


def test_leaves_are_called_by_their_path():
    """A field called value is a leaf as any other; a box adds nothing; slashes are told apart."""
    x = jnp.ones(3)
    report = analyse(lambda p: sum(p["attention"]), {"attention": Attention(x, x, x)})
    assert report.names == ["attention/query", "attention/key", "attention/value"]
    boxed = nnx.State({"dense": {"value": nnx.Param(x), "bias": nnx.Param(x)}})
    names = analyse(lambda p: p["dense"]["bias"][...], boxed).names
    assert names == ["dense/bias", "dense/value"]
    report = analyse(lambda p: p["a/b"] / p["a"]["b"] ** 2, {"a/b": x, "a": {"b": x}})
    assert report.symmetries() == [{"['a']['b']": 1, "['a/b']": 2}]


def test_masks_may_be_prefixes_numpy_bools_and_exponents():
    x = jnp.ones((2, 2))
    params = {"encoder": {"a": x, "b": x}, "head": x}
    report = analyse(lambda p: p["encoder"]["a"] / p["encoder"]["b"] * p["head"], params)
    assert report.is_invariant({"encoder": True, "head": False})
    assert report.is_invariant({"encoder": np.bool_(True), "head": np.zeros((), bool)})
    assert report.is_invariant({"encoder": {"a": 2, "b": 1}, "head": -1})
    assert not report.is_invariant({"encoder": {"a": True, "b": False}, "head": False})


def test_shapes_stand_for_arrays_and_settings_stay_static():
    params = {"w": jax.ShapeDtypeStruct((3, 4), jnp.bfloat16), "activation": jax.nn.relu, "n": 2}
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)

    def fn(p, x, key, train):
        noise = jax.random.normal(key, (2, 4), jnp.bfloat16)
        return p["activation"](x @ p["w"]) ** p["n"] * (noise if train else 0)

    report = analyse(fn, params, jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), key, True)
    assert (report.degree(), report.names) == (2, ["activation", "n", "w"])
