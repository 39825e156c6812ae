"""Wrong input of `sibert_jax.homogeneity`: one clear sentence."""

import jax.numpy as jnp
import pytest

from sibert_jax.homogeneity import (
    analyse,
    assert_scale_invariant,
    euler_residual,
    rescaling_error,
)

W = jnp.array([[1.0, 2.0], [3.0, 4.0]])


def of(params):
    return lambda: analyse(lambda p: p, params)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: analyse(lambda w: w if w[0, 0] > 0 else -w, W), r"traced .*TracerBoolConversion"),
        (lambda: analyse(lambda w: w, W, W), r"traced .*takes 1 positional argument"),
        (of({}), r"(?s)params has no floating-point array.*no leaves at all"),
        (of({"a": jnp.arange(3), "b": "text"}), "found: int32 array, str"),
        (
            lambda: analyse(lambda w: {"w": w, "name": ""}, W),
            "returned a str at output 'name'; return",
        ),
        (lambda: analyse(lambda w: None, W), "^fn returned no array, but None; return what"),
        (lambda: euler_residual(lambda w: w, W), r"must return a scalar, found shape \(2, 2\)"),
        (lambda: rescaling_error(lambda w: w, W, c=float("nan")), "c must be a positive number"),
    ],
)
def test_wrong_functions_and_parameters_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


PARAMS = {"a": W, "n": jnp.arange(3)}


def fn(p):
    return p["a"]


@pytest.mark.parametrize(
    "use",
    [
        analyse(fn, PARAMS).is_invariant,
        analyse(fn, PARAMS).obstruction,
        lambda mask: assert_scale_invariant(fn, PARAMS, mask=mask),
        lambda mask: euler_residual(lambda p: jnp.sum(p["a"]), PARAMS, mask=mask),
        lambda mask: rescaling_error(fn, PARAMS, c=2.0, mask=mask),
    ],
)
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"b": True}, "mask does not fit params"),
        ([True], "mask does not fit params"),
        ({"a": False, "n": True}, "mask selects no floating-point leaf"),
        ({"a": "yes", "n": False}, "mask has str 'yes' at leaf a"),
    ],
)
def test_mask_that_does_not_fit_is_named(use, mask, words):
    with pytest.raises(ValueError, match=words):
        use(mask)
