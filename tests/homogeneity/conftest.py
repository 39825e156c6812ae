"""The numerical side of a certificate: rescale by every certified exponent and compare."""

import jax
import numpy as np
import pytest

from sibert_jax.homogeneity import analyse


def rescale(params, exponents, c):
    """Multiply each named leaf by c to the power of its exponent."""

    def scaled(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
        exponent = float(exponents.get(name.removesuffix("/value"), 0))
        return leaf * np.asarray(c**exponent, leaf.dtype) if exponent else leaf

    return jax.tree_util.tree_map_with_path(scaled, params)


def relative_error(wanted, found):
    """Return the largest error relative to the largest entry; NaN and infinities must agree."""
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    size = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=1e-20)
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(wanted - found) / size)
    return float(np.max(np.nan_to_num(error, nan=np.inf), initial=0))


def compiled(fn, params, *args):
    """Return fn of params alone, compiled; leaves that are no arrays stay static."""
    leaves, treedef = jax.tree.flatten(params)
    is_array = [hasattr(leaf, "dtype") for leaf in leaves]

    @jax.jit
    def run(arrays):
        arrays = iter(arrays)
        filled = [next(arrays) if dynamic else x for x, dynamic in zip(leaves, is_array)]
        return fn(jax.tree.unflatten(treedef, filled), *args)

    return lambda params: run([x for x, a in zip(jax.tree.leaves(params), is_array) if a])


def worst_error(run, params, report, c):
    """Return the largest |f(c^a x) − c^d f(x)| / |f(x)| over a basis of the certified scalings."""

    def outputs(params):
        return [np.asarray(y, np.float64) for y in jax.tree.leaves(run(params))]

    worst = 0.0
    for exponents in report.scalings():
        after = outputs(rescale(params, exponents, c))
        degrees = [
            float(sum(k * exponents.get(name, 0) for name, k in form.items()))
            for form in jax.tree.leaves(report.degrees)
        ]
        for x, y, degree in zip(outputs(params), after, degrees, strict=True):
            worst = max(worst, relative_error(x * c**degree, y))
    return worst


@pytest.fixture
def certify():
    """Analyze, check every certified scaling numerically at c = 3, return the report."""

    def run(fn, params, *args):
        report = analyse(fn, params, *args)
        assert worst_error(compiled(fn, params, *args), params, report, c=3.0) < 2e-4
        return report

    return run
