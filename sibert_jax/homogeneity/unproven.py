"""Symmetries that hold numerically at one point, but that no rule certifies."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity.analyse import analyse
from sibert_jax.homogeneity.numeric import rescaling_error

MAX_DENOMINATOR = 12  # of an exponent relative to another


def unproven_symmetries(
    fn: Callable, params: Any, *args: Any, c: float = 2.0, tolerance: float = 1e-3
) -> list[dict[str, Fraction]]:
    """List symmetries that hold numerically at this point, not proven by `analyse`.

    Exponents a leave the outputs unchanged to first order if Σᵢ aᵢ·∂f/∂(log cᵢ) = 0, where leaf i
    is multiplied by cᵢ; the solutions with simple ratios are then tried by `rescaling_error`.

    Args:
        fn, params, args: as for `analyse`, but with arrays instead of shapes.
        c: the factor that is tried.
        tolerance: the largest relative change that counts as none, dimensionless.

    Returns:
        Exponents by leaf name that extend `report.symmetries()`, none if everything is proven. A
        symmetry of this point and data only (a ReLU that is off, a token that does not occur) is
        listed too.

    Example:
        >>> import jax.numpy as jnp
        >>> unproven_symmetries(lambda w: jnp.log(w[0] ** 2) - 2 * jnp.log(w[0]), jnp.ones(2))
        [{'params': Fraction(1, 1)}]
    """
    report = analyse(fn, params, *args)
    flat, structure = jax.tree.flatten(params)
    indices = report.parameter_indices

    def of_parameters(values):
        filled = list(flat)
        for i, value in zip(indices, values, strict=True):
            filled[i] = value
        outputs = jax.tree.leaves(fn(jax.tree.unflatten(structure, filled), *args))
        return [y for y in outputs if jnp.issubdtype(jnp.result_type(y), jnp.inexact)]

    found = []
    if not indices:
        return found
    proven = [_row(symmetry, report.names, indices) for symmetry in report.symmetries()]
    for vector in _null_space(of_parameters, [jnp.asarray(flat[i]) for i in indices]):
        if _rank([*proven, vector]) == len(proven):
            continue
        exponents = dict(zip(indices, vector, strict=True))
        mask = [exponents.get(i, Fraction(0)) for i in range(len(flat))]
        tree = jax.tree.unflatten(structure, mask)
        if float(rescaling_error(fn, params, *args, c=c, mask=tree)) <= tolerance:
            proven.append(vector)
            found.append({report.names[i]: k for i, k in exponents.items() if k})
    return found


def _row(symmetry: dict[str, Fraction], names: list[str], indices: list[int]) -> list[Fraction]:
    return [symmetry.get(names[i], Fraction(0)) for i in indices]


def _rank(rows: list[list[Fraction]]) -> int:
    return int(np.linalg.matrix_rank(np.array(rows, float))) if rows else 0


def _null_space(fn: Callable, values: list[jax.Array]) -> list[list[Fraction]]:
    """Return the exponents with simple ratios to which the outputs do not react."""
    outputs, derivative = jax.linearize(fn, values)
    columns = [
        derivative([v if i == j else jnp.zeros_like(v) for j, v in enumerate(values)])
        for i in range(len(values))
    ]
    rows, rounding = [np.zeros((1, len(values)))], 0.0
    for place, output in enumerate(outputs):
        reactions = np.stack([_reals(column[place]) for column in columns], axis=1)
        # Relative to the output: where nothing reacts, the reactions are rounding errors of it.
        sizes = [np.max(np.abs(a), initial=0) for a in (reactions, _reals(output))]
        if not np.all(np.isfinite(sizes)):
            return []
        rows.append(reactions / (max(sizes) or 1))
        rounding = max(rounding, float(jnp.finfo(output.dtype).eps))
    _, singular, right = np.linalg.svd(np.concatenate(rows), full_matrices=True)
    rank = int(np.sum(singular > max(1e-4, 8 * rounding) * len(values)))
    return _simple(right[rank:])


def _reals(y: jax.Array) -> np.ndarray:
    """Return a tensor's entries, of a complex one their parts, as a float64 vector."""
    parts = (y.real, y.imag) if jnp.issubdtype(y.dtype, jnp.complexfloating) else (y,)
    return np.concatenate([np.ravel(np.asarray(part, np.float64)) for part in parts])


def _simple(basis: np.ndarray) -> list[list[Fraction]]:
    """Bring a basis to reduced echelon form; keep the rows close to simple fractions."""
    rows = basis.copy()
    for i in range(len(rows)):
        place = np.unravel_index(np.argmax(np.abs(rows[i])), rows[i].shape)[0]
        rows[i] /= rows[i, place]
        others = np.arange(len(rows)) != i
        rows[others] -= rows[others, place : place + 1] * rows[i]
    simple = []
    for row in rows:
        fractions = [Fraction(float(k)).limit_denominator(MAX_DENOMINATOR) for k in row]
        if np.allclose(row, [float(k) for k in fractions], atol=5e-3):
            simple.append(fractions)
    return simple
