"""Calls, loops, branches, derivatives, devices and kernels: degrees pass through them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl

from sibert_jax.homogeneity import analyse, degree_rule, kernel_degree_rule, rules

W = jax.random.normal(jax.random.key(0), (4, 4))
V = jax.random.normal(jax.random.key(1), (4, 4))
PARAMS = {"v": V, "w": W}


def cube(w):
    return w**3


@jax.custom_vjp
def doubled(w):
    return 2 * w


doubled.defvjp(lambda w: (2 * w, None), lambda _, g: (2 * g,))


@jax.custom_jvp
def root(w):
    return jnp.sqrt(w * w)


root.defjvp(lambda primals, tangents: (root(*primals), jnp.sign(primals[0]) * tangents[0]))


def layers(w):  # one leaf holds all four layers
    return lax.scan(lambda h, w: (jnp.maximum(h @ w, 0), None), V, w[:, None] * jnp.eye(4)[None])[0]


@pytest.mark.parametrize(
    ("fn", "degree"),
    [
        (jax.jit(cube), 3),
        (layers, 4),
        (jax.checkpoint(cube), 3),
        (jax.hessian(lambda w: jnp.sum(cube(w[0]))), 1),
        (doubled, 1),
        (jax.grad(lambda w: jnp.sum(root(w) ** 2)), 1),
        (jax.grad(lambda w: jnp.sum(jax.checkpoint(lambda w: jnp.maximum(w, 0) ** 2)(w))), 1),
        (lambda w: jax.vmap(jax.jit(jax.grad(lambda r: jnp.sum(r**2) ** 2)))(w), 3),
        (lambda w: lax.scan(lambda c, row: (c + row, c), jnp.zeros(4), w, reverse=True)[1], 1),
        (lambda w: lax.switch(2, [cube, lambda w: w**3 + w**3, jax.jit(cube)], w), 3),
    ],
)
def test_transformation_keeps_the_algebra(fn, degree, certify):
    report = certify(fn, W)
    assert report.degree() == degree
    assert report.unknown_primitives() == []


def test_scan_that_starts_at_zeros_has_the_degree_of_its_terms(certify):
    def fn(p):
        def body(carry, row):
            total, last = carry
            return (total + last, row * p["v"][0]), total

        return lax.scan(body, (jnp.zeros(4), jnp.zeros(4)), p["w"])

    assert jax.tree.leaves(certify(fn, PARAMS).degree()) == [2, 2, 2]


def test_scan_that_changes_the_degree_is_required_to_keep_it():
    def powers(w, x):
        return lax.scan(lambda h, _: (h @ w, h), x, None, length=1000)

    for output in (0, 1):  # the second: x, xw, xw², ... of different degrees
        report = analyse(lambda w, i=output: powers(w, V)[i], W)
        assert report.scalings() == []
        assert report.obstruction().primitive == "scan"


def test_while_loop_must_run_as_often_as_before(certify):
    def halve(limit):
        return lambda p: lax.while_loop(
            lambda c: jnp.sum(jnp.abs(c)) > limit(p), lambda c: c / 2, p["w"]
        )

    relative = certify(halve(lambda p: 0.1 * jnp.sum(jnp.abs(p["v"]))), PARAMS)
    assert relative.scalings() == [{"v": 1, "w": 1}]
    absolute = certify(halve(lambda p: 0.1), PARAMS)
    assert absolute.scalings() == [{"v": 1}]  # v is not used


def test_branches_must_agree_and_the_choice_must_not_change(certify):
    def fn(p):
        return lax.cond(jnp.sum(p["w"]) > 0, lambda: p["w"] * p["v"], lambda: p["w"] ** 2)

    assert certify(fn, PARAMS).scalings() == [{"v": 1, "w": 1}]
    report = certify(
        lambda p: lax.cond(p["w"][0, 0] > 1, lambda: p["v"], lambda: 2 * p["v"]), PARAMS
    )
    assert report.scalings() == [{"v": 1}]


def test_shard_has_the_degree_of_the_whole():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.P("d")

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=split, out_specs=(split, jax.P()), check_vma=False
    )
    def fn(p):
        norm = jnp.sqrt(lax.psum(jnp.sum(p["w"] ** 2), "d"))
        return p["w"] / norm, (lax.pmax(p["v"], "d"), lax.all_gather(p["v"], "d"))

    report = analyse(fn, PARAMS)
    assert report.degrees == ({}, ({"v": 1}, {"v": 1}))
    assert len(report.scalings()) == 2


def test_two_shards_of_one_tensor_are_not_taken_for_one_another():
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    block, mirrored = jax.P("i", "j"), jax.P("j", "i")

    def fn(w):
        def shard(here, there):  # blocks (i, j) and (j, i)
            return jnp.where(here > 0, there, 1) * jnp.where(there > 0, here, 0)

        return jax.shard_map(
            shard, mesh=mesh, in_specs=(block, mirrored), out_specs=block, check_vma=False
        )(w, w)

    assert analyse(fn, W).scalings() == []


def relu_scores(q_ref, k_ref, scores_ref):
    scores_ref[...] = jnp.maximum(q_ref[...] @ k_ref[...].T, 0)


def kernel(p):
    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    call = pl.pallas_call(relu_scores, out_shape=shape, interpret=True, name="relu_scores")
    return call(p["w"], p["v"])


outer = jax.extend.core.Primitive("outer_product")
outer.def_abstract_eval(lambda x, y: x)


@pytest.mark.parametrize(
    ("fn", "primitive", "declare", "kept", "name"),
    [
        (kernel, "pallas_call", kernel_degree_rule, rules.KERNEL_RULES, "relu_scores"),
        (
            lambda p: outer.bind(p["w"], p["v"]), "outer_product",
            degree_rule, rules.RULES, "outer_product",
        ),
    ],
)  # fmt: skip
def test_what_has_no_rule_requires_degree_zero(fn, primitive, declare, kept, name):
    report = analyse(fn, PARAMS)
    assert (report.unknown_primitives(), report.scalings()) == ([primitive], [])
    assert declare.__name__ in report.obstruction().repair
    try:
        declare(name)(lambda step, x, y: step.product(x, y))
        assert analyse(fn, PARAMS).degrees == {"v": 1, "w": 1}
    finally:
        del kept[name]


def test_constants_are_read_from_closures_and_arguments_are_data():
    mask = np.array([[0.0, -np.inf, 0.0, -np.inf]], np.float32)
    assert analyse(lambda w: w + mask, W).degree() == 1  # 0 and -inf fit any degree
    assert analyse(lambda w, m: w + m, W, mask).degree() is None


def test_only_what_an_output_depends_on_is_required():
    def fn(w):
        return jnp.where(w > 0, w, 0) + 0 * w, jnp.exp(w).shape[0]

    def written(w):
        memory = jax.new_ref(jnp.zeros((4, 4)))
        memory[...] = jnp.exp(w)
        return memory[...]

    assert analyse(fn, W).degree()[0] == 1
    assert analyse(written, W).obstruction().primitive == "exp"
