"""Numbers known at trace time: which degree they have, and arithmetic on them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity.degree import ANY, ZERO, Degree

MAX_INSPECTED_SIZE = 2**24  # entries; a larger constant counts as an ordinary one of degree 0

_FOLDED = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "sqrt": np.sqrt,
    "square": np.square,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "not": np.logical_not,
    "is_finite": np.isfinite,
    "stop_gradient": lambda x: x,
    "convert_element_type": lambda x: x,
}


def degree_of(array: Any) -> tuple[Degree | None, Any]:
    """Return a constant's degree, and the number that all its entries equal (None if they differ).

    0, ±inf and NaN are left as they are by every scaling and fit any degree; every other number has
    degree 0.
    """
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return ZERO, None
    array = np.asarray(array)
    if array.dtype == jax.dtypes.float0:
        return ANY, 0
    if array.size == 0 or array.size > MAX_INSPECTED_SIZE or array.dtype == object:
        return ZERO, None
    first = array.reshape(-1)[0]
    uniform = bool(np.all(array == first)) or bool(first != first and np.all(array != array))
    if jnp.issubdtype(array.dtype, jnp.inexact):  # of a complex number, both parts
        free = all(np.all((x == 0) | ~np.isfinite(x)) for x in (array.real, array.imag))
    else:
        free = not array.any()
    return (ANY if free else ZERO), (first.item() if uniform else None)


def fold(name: str, constants: tuple, dtype: np.dtype) -> Any:
    """Return the number that an elementwise operation gives on known numbers, else None."""
    operation = _FOLDED.get(name)
    if operation is None or not constants or None in constants:
        return None
    if name in ("not",) and dtype != np.bool_:
        return None
    with np.errstate(all="ignore"):
        exact = operation(*constants)
        result = np.asarray(exact).astype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) and result != exact:
        return None  # an integer overflow or a cast that cuts
    return result.item()
