"""Every public function of JAX that takes one or two arrays: no crash, no false certificate."""

import warnings

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.signal
import jax.scipy.special
import pytest

from sibert_jax.homogeneity import analyse

from .conftest import worst_error

MODULES = [
    jnp, jnp.linalg, jnp.fft, jax.nn, jax.lax,
    jax.scipy.linalg, jax.scipy.signal, jax.scipy.special,
]  # fmt: skip
X = jnp.abs(jax.random.normal(jax.random.key(0), (4, 4))) + 0.1
Y = jnp.abs(jax.random.normal(jax.random.key(1), (4, 4))) + 0.1


def calls(module):
    """Yield (name, function of a list of arrays, the list) for each call that JAX accepts."""
    for name in sorted(dir(module)):
        function = getattr(module, name)
        if name.startswith("_") or not callable(function) or isinstance(function, type):
            continue
        if name.startswith(("save", "load", "from")):  # files
            continue
        for arrays in ([X], [X, Y], [X[0]], [X[0], Y[0]]):

            def fn(arrays, function=function):
                outputs = jax.tree.leaves(function(*arrays))
                is_key = jax.dtypes.extended
                return [jnp.abs(y) for y in outputs if not jnp.issubdtype(y.dtype, is_key)]

            try:
                if not jax.jit(fn)(arrays):
                    continue
            except Exception:  # these arguments do not suit it
                continue
            yield name, fn, arrays


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_public_function_gets_a_false_certificate(module):
    certified = 0
    for name, fn, arrays in calls(module):
        with warnings.catch_warnings():
            report = analyse(fn, arrays)
        if report.scalings():
            certified += 1
            assert worst_error(jax.jit(fn), arrays, report, c=2.0) < 1e-3, name
    assert certified > 0 or module is jax.scipy.special
