"""The numerical side of a certificate: rescale by every certified exponent and compare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse


def rescale(params, exponents, c):
    """Multiply each named leaf by c to the power of its exponent."""

    def scaled(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
        exponent = float(exponents.get(name.removesuffix("/value"), 0))
        return leaf * jnp.asarray(c**exponent, leaf.dtype) if exponent else leaf

    return jax.tree_util.tree_map_with_path(scaled, params)


def relative_error(wanted, found):
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    size = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=1e-20)
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(wanted - found) / size)
    return float(np.max(np.nan_to_num(error, nan=np.inf), initial=0))


def compiled(fn, params, *args):
    """Return fn of params alone, compiled; leaves that are no arrays stay static."""
    is_array = [hasattr(leaf, "dtype") for leaf in jax.tree.leaves(params)]

    def of_arrays(arrays):
        arrays = iter(arrays)
        leaves, treedef = jax.tree.flatten(params)
        leaves = [next(arrays) if dynamic else x for x, dynamic in zip(leaves, is_array)]
        return jax.tree.leaves(fn(jax.tree.unflatten(treedef, leaves), *args))

    run = jax.jit(of_arrays)
    return lambda params: run([x for x, a in zip(jax.tree.leaves(params), is_array) if a])


def worst_error(fn, params, *args, report, c):
    """Return the largest |f(c^a x) − c^d f(x)| / |f(x)| over a basis of the certified scalings."""
    run = compiled(fn, params, *args)
    before = [np.asarray(y, np.float64) for y in run(params)]
    worst = 0.0
    for exponents in report.scalings():
        after = run(rescale(params, exponents, c))
        for x, y, degree in zip(before, after, degrees_at(report, exponents), strict=True):
            wanted = x * c**degree
            worst = max(worst, relative_error(wanted, np.asarray(y, np.float64)))
    return worst


def degrees_at(report, exponents):
    """Return each output's degree under these exponents of named leaves."""
    return [
        float(sum(k * exponents.get(name, 0) for name, k in form.items()))
        for form in jax.tree.leaves(report.degrees)
    ]


@pytest.fixture(scope="session")
def largest_error():
    """The largest relative error of a report's certified scalings at one factor."""
    return worst_error


@pytest.fixture
def certify():
    """Analyse, check every certified scaling numerically at c = 3, return the report."""

    def run(fn, params, *args, tolerance=2e-4):
        report = analyse(fn, params, *args)
        assert worst_error(fn, params, *args, report=report, c=3.0) < tolerance
        return report

    return run
