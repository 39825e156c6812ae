"""Every primitive's degree, derived by hand, and checked numerically by rescaling."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.scipy.linalg import solve_triangular
from jax.scipy.sparse.linalg import cg

from sibert_jax.homogeneity import analyse, rescaling_error

from .conftest import relative_error

KEY = jax.random.key(1)
X = jax.random.normal(KEY, (4, 4)) + 0.3
Y = jax.random.normal(jax.random.key(2), (4, 4)) - 0.2
PARAMS = {"x": X, "y": Y}


def max_pool(a):
    return lax.reduce_window(a, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID")


def solve_and_tell(a, b):
    def solve(matvec, b):
        return jnp.linalg.solve(a, b), jnp.sum(a)

    return lax.custom_linear_solve(lambda x: a @ x, b, solve, has_aux=True)


unit_triangular = functools.partial(solve_triangular, unit_diagonal=True)
# name: (function of x and y, degree of the output as (coefficient of x, of y), what must hold as
# rows (coefficient of x, of y) = 0)
ONE = {
    "neg": (lambda x, y: -x, (1, 0), []),
    "abs": (lambda x, y: jnp.abs(x), (1, 0), []),
    "add": (lambda x, y: x + y, (1, 0), [(1, -1)]),
    "add constant": (lambda x, y: x + 1.5, (1, 0), [(1, 0)]),
    "multiply": (lambda x, y: x * y, (1, 1), []),
    "divide": (lambda x, y: x / y, (1, -1), []),
    "remainder": (lambda x, y: lax.rem(x, y), (1, 0), [(1, -1)]),
    "square": (lambda x, y: jnp.square(x), (2, 0), []),
    "square root": (lambda x, y: jnp.sqrt(jnp.abs(x)), (Fraction(1, 2), 0), []),
    "third power": (lambda x, y: jnp.abs(x) ** (1 / 3), (Fraction(1, 3), 0), []),
    "unknown power": (lambda x, y: jnp.abs(x) ** y, (0, 0), [(1, 0), (0, 1)]),
    "maximum with zero": (lambda x, y: jnp.maximum(x, 0), (1, 0), []),
    "maximum with a constant": (lambda x, y: jnp.maximum(x, 0.1), (1, 0), [(1, 0)]),
    "clip to positive": (lambda x, y: jnp.clip(x, 0, jnp.inf), (1, 0), []),
    "exp": (lambda x, y: jnp.exp(x), (0, 0), [(1, 0)]),
    "gelu": (lambda x, y: jax.nn.gelu(x), (1, 0), [(1, 0)]),
    "sign": (lambda x, y: jnp.sign(x), (0, 0), []),
    "round": (lambda x, y: jnp.round(x), (0, 0), [(1, 0)]),
    "compare with zero": (lambda x, y: x > 0, (0, 0), []),
    "arctan2": (lambda x, y: jnp.arctan2(x, y), (0, 0), [(1, -1)]),
    "cast to integers": (lambda x, y: x.astype(jnp.int32), (0, 0), [(1, 0)]),
    "cast to bool": (lambda x, y: x.astype(bool), (0, 0), []),
    "select": (lambda x, y: jnp.where(x > 0, x, y), (1, 0), [(1, -1)]),
    "select zero": (lambda x, y: jnp.where(x > y, x, 0), (1, 0), [(1, -1)]),
    "select infinity": (lambda x, y: jnp.where(x > 0, x, -jnp.inf), (1, 0), []),
    "select by a threshold": (lambda x, y: jnp.where(x > 0.3, y, 2 * y), (0, 1), [(1, 0)]),
    "mask by a threshold": (lambda x, y: jnp.where(x > 0.3, y, 0), (0, 1), [(1, 0)]),
    "concatenate": (lambda x, y: jnp.concatenate([x, y]), (1, 0), [(1, -1)]),
    "pad": (lambda x, y: jnp.pad(x, 1), (1, 0), []),
    "pad with ones": (lambda x, y: jnp.pad(x, 1, constant_values=1), (1, 0), [(1, 0)]),
    "gather out of bounds": (lambda x, y: jnp.take(x, jnp.array([9]), axis=0), (1, 0), []),
    "gather with zeros out of bounds": (
        lambda x, y: x.at[jnp.array([0, 9])].get(mode="fill", fill_value=0), (1, 0), [],
    ),
    "gather with ones out of bounds": (
        lambda x, y: x.at[jnp.array([0, 9])].get(mode="fill", fill_value=1), (1, 0), [(1, 0)],
    ),
    "gather of integer zeros out of bounds": (  # these are filled with the smallest integer
        lambda x, y: x + jnp.zeros(4, int).at[9].get(mode="fill").astype(x.dtype), (1, 0), [(1, 0)],
    ),
    "dynamic slice": (lambda x, y: lax.dynamic_slice(x, (1, 1), (2, 2)), (1, 0), []),
    "update a slice": (lambda x, y: lax.dynamic_update_slice(x, y, (0, 0)), (0, 1), [(1, -1)]),
    "scatter add": (lambda x, y: x.at[0].add(y[0]), (1, 0), [(1, -1)]),
    "scatter multiply": (lambda x, y: x.at[0].multiply(y[0]), (1, 0), [(0, 1)]),
    "apply at indices": (lambda x, y: x.at[0].apply(jnp.exp), (1, 0), [(1, 0)]),
    "sum": (lambda x, y: jnp.sum(x, 0), (1, 0), []),
    "product of four": (lambda x, y: jnp.prod(x, 0), (4, 0), []),
    "max of masked": (lambda x, y: jnp.max(x, where=y > 0, initial=-jnp.inf), (1, 0), []),
    "variance": (lambda x, y: jnp.var(x, 0), (2, 0), []),
    "sort by another": (lambda x, y: lax.sort((y, x), num_keys=1)[1], (1, 0), []),
    "cumulative product": (lambda x, y: jnp.cumprod(x, 0), (0, 0), [(1, 0)]),
    "cumulative logsumexp": (lambda x, y: lax.cumlogsumexp(x), (0, 0), [(1, 0)]),
    "reduce by a function": (
        lambda x, y: lax.reduce(x, 0.0, lambda a, b: a + jnp.maximum(b, 0), (0,)), (1, 0), [],
    ),
    "reduce zeros together with others": (
        lambda x, y: lax.reduce(
            (jnp.zeros((4, 4)), x), (0.0, 0.0),
            lambda a, b: (a[0] + b[0] + a[1] + b[1], a[1] + b[1] + a[0] * b[0]), (0,),
        )[1],
        (1, 0),
        [(1, 0)],
    ),
    "max pooling": (lambda x, y: max_pool(x), (1, 0), []),
    "gradient of max pooling": (jax.grad(lambda x, y: jnp.sum(max_pool(x) ** 3)), (2, 0), []),
    "matrix product": (lambda x, y: x @ y, (1, 1), []),
    "convolution": (
        lambda x, y: lax.conv(x[None, None], y[None, None, :2, :2], (1, 1), "SAME"), (1, 1), [],
    ),
    "logsumexp": (lambda x, y: jax.nn.logsumexp(x), (0, 0), [(1, 0)]),
    "real fourier transform": (lambda x, y: jnp.fft.irfft(jnp.fft.rfft(x)), (1, 0), []),
    "complex": (lambda x, y: jnp.abs(lax.complex(x, y)), (1, 0), [(1, -1)]),
    "cholesky": (lambda x, y: jnp.linalg.cholesky(x @ x.T), (1, 0), []),
    "q of qr": (lambda x, y: jnp.linalg.qr(x)[0], (0, 0), []),
    "r of qr": (lambda x, y: jnp.linalg.qr(x)[1], (1, 0), []),
    "eigenvalues": (lambda x, y: jnp.linalg.eigvalsh(x + x.T), (1, 0), []),
    "eigenvectors": (lambda x, y: jnp.abs(jnp.linalg.eigh(x + x.T)[1]), (0, 0), []),
    "solve": (lambda x, y: jnp.linalg.solve(x, y), (-1, 1), []),
    "solution beside its solver's": (lambda x, y: solve_and_tell(x, y[0])[0], (-1, 1), []),
    "what a solver tells": (lambda x, y: solve_and_tell(x, y[0])[1], (0, 0), [(1, 0), (0, 1)]),
    "hessenberg form": (lambda x, y: jax.scipy.linalg.hessenberg(x), (0, 0), [(1, 0)]),
    "product with q": (lambda x, y: jax.scipy.linalg.qr_multiply(x, y)[0], (0, 1), [(1, 0)]),
    "determinant": (lambda x, y: jnp.linalg.det(x), (0, 0), [(1, 0)]),  # L and U share an array
    "triangular solve": (lambda x, y: solve_triangular(x, y), (-1, 1), []),
    "unit triangular solve": (lambda x, y: unit_triangular(x, y), (0, 1), [(1, 0)]),
    "conjugate gradients": (lambda x, y: cg(x @ x.T, y[0])[0], (-2, 1), []),
    "random": (lambda x, y: x * jax.random.normal(KEY, x.shape), (1, 0), []),
    "stop gradient": (lambda x, y: lax.stop_gradient(x) * y, (1, 1), []),
    "hypotenuse": (lambda x, y: jnp.hypot(x, y), (1, 0), [(1, -1)]),
    "copied sign": (lambda x, y: jnp.copysign(x, y), (1, 0), []),
    "NaN to zero": (lambda x, y: jnp.nan_to_num(x), (1, 0), []),
    "NaN to one": (lambda x, y: jnp.nan_to_num(x, nan=1.0), (1, 0), [(1, 0)]),
    "histogram": (lambda x, y: jnp.histogram(x / jnp.max(x))[0], (0, 0), []),
    "checkpoint name": (lambda x, y: checkpoint_name(x, "a"), (1, 0), []),
    "optimization barrier": (lambda x, y: lax.optimization_barrier((x, y))[1], (0, 1), []),
    "reduced precision": (lambda x, y: lax.reduce_precision(x * 256, 8, 7), (1, 0), []),
}  # fmt: skip


def scalings_by_hand(rows):
    """Return a basis of the exponents (x, y) orthogonal to at most two rows."""
    if not rows:
        return [(1, 0), (0, 1)]
    (a, b), *more = rows
    return [] if more else [(-b, a)]


every_output = jax.jit(lambda x, y: {name: fn(x, y) for name, (fn, *_) in ONE.items()})


@functools.cache
def outputs_at(x, y):
    """Return all outputs, of one program, with the arrays scaled by 3 to these powers."""
    return every_output(X * np.float32(3.0**x), Y * np.float32(3.0**y))


@pytest.mark.parametrize("name", ONE)
def test_degree_is_that_derived_by_hand(name):
    fn, degree, rows = ONE[name]
    report = analyse(lambda p: fn(p["x"], p["y"]), PARAMS)
    wanted = scalings_by_hand(rows)
    found = [(s.get("x", 0), s.get("y", 0)) for s in report.scalings()]
    assert len(found) == len(wanted)
    assert np.linalg.matrix_rank(np.array(found + wanted, float).reshape(-1, 2)) == len(wanted)
    tolerance = 2e-2 if name == "reduced precision" else 2e-4
    for x, y in wanted:
        by_hand = degree[0] * x + degree[1] * y
        assert report.degree({"x": x, "y": y}) == by_hand
        before, after = (np.float64(outputs_at(*at)[name]) for at in ((0, 0), (x, y)))
        assert relative_error(before * 3.0 ** float(by_hand), after) < tolerance
    assert report.unknown_primitives() == []


@pytest.mark.parametrize("power", [0.3, 1 / 3, -2.5])
def test_power_is_the_simplest_fraction_in_float32_only(power):
    degree = analyse(lambda x: x**power, jnp.ones(3)).degree()
    assert degree == Fraction(power).limit_denominator(10)
    low = jnp.bfloat16(power)
    assert analyse(lambda x: x**low, jnp.ones(3, low.dtype)).degree() == Fraction(float(low))


def l3_direction(w):
    return w / jnp.sum(jnp.abs(w) ** 3) ** (1 / 3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_root_is_certified_where_its_rounded_exponent_cancels(dtype):
    """1 - 3·171/512 = -1/512 in bfloat16: it shows at c = 2²⁰, but for rounding not in float32."""
    w = jnp.array([0.5, 1.0, 1.5], dtype)
    obstruction = analyse(l3_direction, w).obstruction()
    assert (obstruction is None) == (dtype == jnp.float32)
    if obstruction is None:
        assert rescaling_error(l3_direction, w, c=2.0**20) < 2e-6
        return
    assert "take this root in float32" in obstruction.repair
    assert rescaling_error(l3_direction, w, c=2.0**20) > 0.02
    through_float32 = analyse(lambda w: l3_direction(w.astype(jnp.float32)), w)
    assert through_float32.is_invariant()
