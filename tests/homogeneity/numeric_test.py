"""Euler's identity and rescaling against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import euler_residual, rescaling_error, unproven_symmetries

X = {"a": jnp.array([3.0, -1.0, 2.0]), "b": jnp.array([0.5, 4.0])}


def angle(p):
    return jnp.sum(jnp.sin(p["a"] / jnp.linalg.norm(p["a"]))) * jnp.sum(p["b"] ** 2)


@pytest.mark.parametrize(
    ("loss", "x", "inner_product", "gradient_norm"),
    [
        (lambda w: w[0] + 2 * w[1], [3.0, 4.0], 11, 5**0.5),
        (lambda w: jnp.sum(jnp.sign(w)), [3.0, 4.0], 0, 1),
        # Euler: <x, ∇L> = k·L for L of degree k; here L = Σx⁴, k = 4, ∇L = 4x³.
        (lambda x: jnp.sum(x**4), [1.0, 2.0], 4 * 17, 4 * 65**0.5),
        (lambda z: jnp.sum(jnp.angle(z)), [1.0 + 2.0j, -0.5 + 1.0j], 0, 1),
    ],
)
def test_residual_is_the_cosine_of_parameters_and_gradient(loss, x, inner_product, gradient_norm):
    wanted = inner_product / np.linalg.norm(x) / gradient_norm
    np.testing.assert_allclose(euler_residual(loss, jnp.array(x)), wanted, rtol=1e-6, atol=1e-6)


def test_residual_is_zero_on_invariant_leaves_only():
    """Also under jit and in low precision; and powers of two round nothing."""
    assert rescaling_error(angle, X, c=8.0, mask={"a": True, "b": False}) == 0
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), X)
    residual = jax.jit(lambda p: euler_residual(angle, p, mask={"a": True, "b": False}))
    assert residual(X) < 1e-6
    assert residual(low) < 3e-2
    assert residual(low).dtype == jnp.float32
    assert euler_residual(angle, X, mask={"a": False, "b": True}) > 0.9


def test_exponents_give_the_residual_of_a_graded_scaling():
    def product(p):
        return jnp.sum(p["a"]) ** 2 * jnp.sum(p["b"]) ** -4  # invariant for a ~ c², b ~ c

    assert euler_residual(product, X, mask={"a": 2, "b": 1}) < 1e-6
    assert euler_residual(product, X) > 1e-2
    assert rescaling_error(product, X, c=4.0, mask={"a": 2, "b": 1}) < 1e-6


@pytest.mark.parametrize(
    ("fn", "w", "c", "wanted"),
    [
        (lambda w: w**3, [1.0, -2.0, 0.5], 2.0, 7.0),  # |8w³ − w³| / max|w³|
        (lambda w: {"a": w / jnp.sum(w), "b": w**2, "c": jnp.sum(w > 0)}, [1.0, 1.0], 3.0, 8.0),
        (lambda w: w[0] - w[1], [1.0, 1.0], 2.0, 0.0),  # 0 is compared absolutely
        (lambda w: 1 / w * w, [0.0, 2.0], 2.0, 0.0),  # NaN before and after
        (lambda w: jnp.where(w > 3, jnp.inf, 1.0), [0.0, 2.0], 2.0, jnp.inf),
    ],
)
def test_rescaling_error_is_relative_to_the_largest_entry(fn, w, c, wanted):
    np.testing.assert_allclose(rescaling_error(fn, jnp.array(w), c=c), wanted, rtol=1e-6)


def layer_norm_beside_logs(p):
    h = jnp.linspace(-1, 1, 12).reshape(3, 4) @ p["w"]
    h = h - jnp.mean(h, -1, keepdims=True)
    h = h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-12)
    return 1e-3 * h, jnp.log(p["v"]) - jnp.log(p["v"][::-1])


W = jnp.array([1.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("fn", "params", "wanted"),
    [
        (angle, X, []),  # a's is proven
        # log a² - 4 log b: a ~ c², b ~ c; d is not used, so proven.
        (
            lambda p: jnp.log(p["a"][0] ** 2) - 4 * jnp.log(p["b"][1]),
            X | {"d": jnp.ones(2)},
            [{"a": 1, "b": 0.5}],
        ),
        (lambda w: jnp.argmax(jnp.log(w)), W, [{"params": 1}]),
        (
            lambda w: jnp.exp(jax.lax.complex(w * 0, jnp.log(w) - jnp.log(w[0]))),
            W,
            [{"params": 1}],
        ),
        # All derivatives are rounding errors, whatever the size of the output.
        (
            layer_norm_beside_logs,
            {"w": jax.random.normal(jax.random.key(1), (4, 8)), "v": jnp.arange(1.0, 5.0)},
            [{"v": 1}, {"w": 1}],
        ),
    ],
)
def test_symmetries_that_hold_without_a_proof_are_found(fn, params, wanted):
    assert sorted(unproven_symmetries(fn, params), key=str) == wanted
