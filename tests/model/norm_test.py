"""Layer normalization against its formula in float64: value, derivatives forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model import normalize


def by_formula(x, eps, relative):
    """(x − mean) / √(var + eps·mean(x²)), or √(var + eps)."""
    mean = x.mean(axis=-1, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    guard = (x**2).mean(axis=-1, keepdims=True) if relative else 1.0
    return (x - mean) / jnp.sqrt(var + eps * guard)


@pytest.mark.parametrize(("relative", "eps"), [(True, 1e-6), (True, 0.1), (False, 0.1)])
def test_value_and_derivatives_equal_the_formula_in_float64(eps, relative):
    rng = np.random.default_rng(0)
    x, t = rng.normal(3.0, 1.0, (5, 7)), rng.normal(size=(5, 7))

    def derivatives(norm, dtype):
        a, b = jnp.asarray(x, dtype), jnp.asarray(t, dtype)
        value, tangent = jax.jvp(norm, (a,), (b,))

        def total(a):
            return jnp.sum(norm(a) * b)

        second = jax.jvp(jax.grad(total), (a,), (b,))[1]
        return value, tangent, jax.grad(total)(a), second

    derivatives = jax.jit(derivatives, static_argnums=(0, 1))
    ours = derivatives(lambda x: normalize(x, eps, relative=relative), jnp.float32)
    with jax.enable_x64(True):
        wanted = derivatives(lambda x: by_formula(x, eps, relative), jnp.float64)
    for found, expected in zip(ours, wanted):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_row_of_zeros_gives_zeros_and_no_gradient():
    zeros, norm = np.zeros((2, 4), np.float32), lambda x: normalize(x, 1e-6)
    value, gradient = jax.jit(lambda x: (norm(x), jax.grad(lambda x: jnp.sum(norm(x)))(x)))(zeros)
    np.testing.assert_array_equal(value, zeros)
    np.testing.assert_array_equal(gradient, zeros)


def test_bfloat16_has_statistics_in_float32():
    x = np.random.default_rng(2).normal(size=(3, 512)).astype(np.float32)
    half = jnp.asarray(x, jnp.bfloat16)

    def total(h):
        return jnp.sum(jnp.square(normalize(h, 1e-6).astype(jnp.float32)))

    value, gradient = jax.jit(jax.value_and_grad(total))(half)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(value), x.size, rtol=1e-3)
