"""Wrong input: one clear sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import (
    analyse,
    assert_scale_invariant,
    euler_residual,
    rescaling_error,
)

W = jnp.array([[1.0, 2.0], [3.0, 4.0]])


def test_a_function_that_does_not_trace():
    with pytest.raises(ValueError, match=r"fn could not be traced .*TracerBoolConversionError"):
        analyse(lambda w: w if w[0, 0] > 0 else -w, W)


def test_a_function_of_other_arguments():
    with pytest.raises(ValueError, match=r"fn could not be traced .*takes 1 positional argument"):
        analyse(lambda w: w, W, W)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, "no leaves at all"),
        ({"a": 1.0}, "found: float"),
        ({"a": np.arange(3)}, "found: int64 array"),
        ({"a": jnp.arange(3), "b": "text"}, "found: int32 array, str"),
    ],
)
def test_a_tree_without_floating_arrays(params, found):
    with pytest.raises(ValueError, match=r"params has no floating-point array") as caught:
        analyse(lambda p: p, params)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ({"b": True}, "mask does not fit params"),
        ({"a": {"c": True}}, "mask does not fit params"),
        ([True], "mask does not fit params"),
        ({"a": False}, "mask selects no floating-point leaf"),
        ({"a": "yes"}, "mask has str 'yes' at leaf a"),
    ],
)
def test_a_mask_that_does_not_fit(mask, sentence):
    params = {"a": W}
    for use in (
        analyse(lambda p: p["a"], params).is_invariant,
        analyse(lambda p: p["a"], params).obstruction,
        lambda mask: assert_scale_invariant(lambda p: p["a"], params, mask=mask),
        lambda mask: euler_residual(lambda p: jnp.sum(p["a"]), params, mask=mask),
        lambda mask: rescaling_error(lambda p: p["a"], params, c=2.0, mask=mask),
    ):
        with pytest.raises(ValueError, match=sentence):
            use(mask)


def test_a_mask_of_an_integer_leaf_alone_selects_nothing():
    params = {"a": W, "n": jnp.arange(3)}
    with pytest.raises(ValueError, match="mask selects no floating-point leaf"):
        analyse(lambda p: p["a"], params).is_invariant({"a": False, "n": True})


def test_outputs_that_are_not_arrays():
    with pytest.raises(ValueError, match="fn returned a str at output 'name'; return arrays only"):
        analyse(lambda w: {"w": w, "name": "text"}, W)


def test_an_output_that_is_no_array_by_itself():
    with pytest.raises(ValueError, match="^fn returned a str; return arrays only$"):
        analyse(lambda w: "text", W)


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_function_that_returns_nothing_is_not_certified(nothing):
    with pytest.raises(ValueError, match=f"^fn returned no array, but {nothing}; return what"):
        analyse(lambda w: nothing, W)


def test_a_loss_that_is_not_a_scalar():
    with pytest.raises(ValueError, match=r"loss must return a scalar, found shape \(2, 2\)"):
        euler_residual(lambda w: w, W)


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_a_factor_that_is_not_positive(c):
    with pytest.raises(ValueError, match="c must be a positive number"):
        rescaling_error(lambda w: w, W, c=c)


def test_masks_may_be_prefixes_numpy_bools_and_exponents():
    params = {"encoder": {"a": W, "b": W}, "head": W}
    report = analyse(lambda p: p["encoder"]["a"] / p["encoder"]["b"] * p["head"], params)
    assert report.is_invariant({"encoder": True, "head": False})
    assert report.is_invariant({"encoder": np.bool_(True), "head": np.zeros((), bool)})
    assert report.is_invariant({"encoder": {"a": 2, "b": 1}, "head": -1})
    assert not report.is_invariant({"encoder": {"a": True, "b": False}, "head": False})


def test_leaves_are_told_apart_where_a_key_holds_a_slash():
    report = analyse(lambda p: p["a/b"] / p["a"]["b"] ** 2, {"a/b": W, "a": {"b": W}})
    assert report.symmetries() == [{"['a']['b']": 1, "['a/b']": 2}]


def test_shapes_stand_for_arrays_and_settings_stay_static():
    params = {"w": jax.ShapeDtypeStruct((3, 4), jnp.bfloat16), "activation": jax.nn.relu, "n": 2}
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)

    def fn(p, x, key, train):
        assert train is True
        noise = jax.random.normal(key, (2, 4), jnp.bfloat16)
        return p["activation"](x @ p["w"]) ** p["n"] * noise

    report = analyse(fn, params, jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), key, True)
    assert report.degree() == 2
    assert report.names == ["activation", "n", "w"]
