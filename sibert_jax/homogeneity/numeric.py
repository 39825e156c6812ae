"""Numerical checks: Euler's identity for gradients, rescaling, and unproven symmetries."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity.analyse import analyse
from sibert_jax.homogeneity.inputs import exponents_of

MAX_DENOMINATOR = 12  # of the ratio of two exponents


def _split(params: Any, mask: Any) -> tuple[list, list[int], list, Any]:
    """Return the leaves, the indices of the scaled ones, all exponents and the tree definition."""
    exponents = exponents_of(mask, params)
    flat, structure = jax.tree.flatten(params)
    chosen = [i for i, exponent in enumerate(exponents) if exponent]
    return flat, chosen, exponents, structure


def euler_residual(loss: Callable, params: Any, *args: Any, mask: Any = None) -> jax.Array:
    """Measure how far a loss is from scale invariance at this point, by Euler's identity.

        |⟨x, ∇L(x)⟩| / (‖x‖ · ‖∇L(x)‖)

    x is the vector of the masked leaves. The result is 0 (up to rounding, about 1e-7 in float32) if
    L(cx) = L(x), and 1 if the gradient points along x. Works under `jax.jit`.

    Args:
        loss: a function of (params, *args) with a scalar result.
        params: a pytree of arrays.
        *args: further arguments, not differentiated.
        mask: a tree of bools, a prefix of `params`; None for every floating-point leaf. With
            numbers, the exponents a of a scaling c^a, the inner product has a·x in place of x.

    Returns:
        A float32 scalar (float64 for float64 parameters), dimensionless; 0 if the gradient is 0.

    Raises:
        ValueError: if the mask does not fit, or the loss is not a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(euler_residual(lambda w: jnp.sum(w**2), jnp.array([3.0, 4.0]))), 6)
        1.0
    """
    flat, chosen, exponents, structure = _split(params, mask)

    def of_chosen(values):
        filled = list(flat)
        for i, value in zip(chosen, values, strict=True):
            filled[i] = value
        result = loss(jax.tree.unflatten(structure, filled), *args)
        if jnp.shape(result) != ():
            raise ValueError(
                f"loss must return a scalar, found shape {jnp.shape(result)}; take a mean or sum"
            )
        return result

    values = [jnp.asarray(flat[i]) for i in chosen]
    wide = any(v.dtype in (jnp.float64, jnp.complex128) for v in values)
    gradients = [_widened(g, wide) for g in jax.grad(of_chosen)(values)]
    generators = [float(exponents[i]) * _widened(v, wide) for i, v in zip(chosen, values)]
    # JAX's gradient in a complex z = x + iy is ∂L/∂x − i∂L/∂y, so Re(z·g) = x·∂L/∂x + y·∂L/∂y.
    inner = sum(jnp.sum((x * g).real) for x, g in zip(generators, gradients, strict=True))
    product = _norm(generators) * _norm(gradients)
    return jnp.where(product > 0, jnp.abs(inner) / jnp.where(product > 0, product, 1), 0)


def _widened(x: jax.Array, wide: bool) -> jax.Array:
    """Cast to at least float32, and to float64 if `wide`; complex stays complex."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.astype(jnp.complex128 if wide else jnp.complex64)
    return x.astype(jnp.float64 if wide else jnp.float32)


def _norm(vectors: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(sum(jnp.vdot(x, x).real for x in vectors))


def rescaling_error(fn: Callable, params: Any, *args: Any, c: float, mask: Any = None) -> jax.Array:
    """Measure how much the outputs change when the masked leaves are multiplied by c.

        max |f(cx) − f(x)| / max |f(x)|,  the largest over the outputs

    The error of an all-zero output is absolute. Where f(x) is not finite, f(cx) must be equal to
    it, or the error is infinite.

    Args:
        fn: a function of (params, *args) that returns a pytree of arrays.
        params: a pytree of arrays.
        *args: further arguments.
        c: the factor, > 0. A power of two makes the multiplication itself exact.
        mask: a tree of bools, a prefix of `params`; None for every floating-point leaf. With
            numbers, each leaf is multiplied by c to the power of its number.

    Returns:
        A dimensionless float32 scalar.

    Raises:
        ValueError: if the mask does not fit or c is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> float(rescaling_error(lambda w: w / jnp.max(w), jnp.array([1.0, 2.0]), c=4.0))
        0.0
    """
    if not c > 0:
        raise ValueError(
            f"c must be a positive number, found {c}; degrees are about scaling by c > 0"
        )
    flat, chosen, exponents, structure = _split(params, mask)
    scaled = list(flat)
    for i in chosen:
        leaf = jnp.asarray(flat[i])
        scaled[i] = leaf * jnp.asarray(float(c) ** float(exponents[i]), leaf.dtype)
    before = fn(params, *args)
    after = fn(jax.tree.unflatten(structure, scaled), *args)
    errors = [
        _relative(x, y)
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    return jnp.max(jnp.stack(errors))


def _relative(before: Any, after: Any) -> jax.Array:
    """Return the largest difference of one output, relative to its largest entry, in float32."""
    x, y = jnp.asarray(before), jnp.asarray(after)
    wide = x.dtype in (jnp.float64, jnp.complex128)
    x, y = _widened(x, wide), _widened(y, wide)
    finite = jnp.isfinite(x)
    same = (x == y) | (jnp.isnan(x) & jnp.isnan(y))
    difference = jnp.where(finite, jnp.abs(y - x), jnp.where(same, 0, jnp.inf))
    size = jnp.max(jnp.where(finite, jnp.abs(x), 0), initial=0)
    return (jnp.max(difference, initial=0) / jnp.where(size > 0, size, 1)).astype(jnp.float32)


def unproven_symmetries(
    fn: Callable, params: Any, *args: Any, c: float = 2.0, tolerance: float = 1e-3
) -> list[dict[str, Fraction]]:
    """List symmetries that hold numerically at this point but are not proven by `analyse`.

    Exponents a leave the outputs unchanged to first order if Σᵢ aᵢ·∂f/∂(log cᵢ) = 0, where leaf i
    is multiplied by cᵢ; the solutions with simple ratios are then tested with `rescaling_error`.

    Args:
        fn, params, args: as for `analyse`, but with arrays instead of shapes.
        c: the scaling factor of the test.
        tolerance: the largest relative change of an output that counts as zero.

    Returns:
        Exponents by leaf name that extend `report.symmetries()`; empty if all are proven. Includes
        symmetries of this point and data only (an inactive ReLU, a token that does not occur).

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
    """Return the exponents with simple ratios that leave the outputs unchanged to first order."""
    outputs, derivative = jax.linearize(fn, values)
    columns = [
        derivative([v if i == j else jnp.zeros_like(v) for j, v in enumerate(values)])
        for i in range(len(values))
    ]
    rows, rounding = [np.zeros((1, len(values)))], 0.0
    for place, output in enumerate(outputs):
        reactions = np.stack([_reals(column[place]) for column in columns], axis=1)
        # Relative to the output: without sensitivity, the derivatives are its rounding errors.
        sizes = [np.max(np.abs(a), initial=0) for a in (reactions, _reals(output))]
        if not np.all(np.isfinite(sizes)):
            return []
        rows.append(reactions / (max(sizes) or 1))
        rounding = max(rounding, float(jnp.finfo(output.dtype).eps))
    _, singular, right = np.linalg.svd(np.concatenate(rows), full_matrices=True)
    rank = int(np.sum(singular > max(1e-4, 8 * rounding) * len(values)))
    return _simple(right[rank:])


def _reals(y: jax.Array) -> np.ndarray:
    """Return a tensor's entries (real and imaginary parts if complex) as a float64 vector."""
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
