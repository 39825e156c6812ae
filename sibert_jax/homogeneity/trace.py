"""Turn a function and its arguments into a jaxpr, without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity import leaves


def _abstract(leaf: Any) -> Any:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jax.ShapeDtypeStruct(np.shape(leaf), dtype)


def trace(fn: Callable, params: Any, args: tuple) -> tuple[Any, Any]:
    """Return the closed jaxpr of fn(params, *args) over all array leaves, and the output's tree.

    Leaves that are not arrays (functions, strings, Python numbers) are static.

    Raises:
        ValueError: if `fn` cannot be traced, or returns something that is not an array.
    """
    flat, structure = jax.tree.flatten((params, args))
    dynamic = [i for i, leaf in enumerate(flat) if leaves.is_array(leaf)]
    output_tree = None

    def of_arrays(*arrays):
        nonlocal output_tree
        filled = list(flat)
        for i, array in zip(dynamic, arrays, strict=True):
            filled[i] = array
        whole_params, whole_args = jax.tree.unflatten(structure, filled)
        output = fn(whole_params, *whole_args)
        pairs, output_tree = jax.tree_util.tree_flatten_with_path(output)
        for path, leaf in pairs:
            if not isinstance(leaf, (*leaves.ARRAY_TYPES, bool, int, float, complex)):
                where = f" at output {leaves.name_of(path)!r}" if path else ""
                raise _NotAnArray(f"fn returned a {type(leaf).__name__}{where}; return arrays only")
        if not pairs:
            raise _NotAnArray(f"fn returned no array, but {output!r}; return what must not change")
        return [leaf for _, leaf in pairs]

    try:
        closed = jax.make_jaxpr(of_arrays)(*[_abstract(flat[i]) for i in dynamic])
    except _NotAnArray as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        raise ValueError(
            f"fn could not be traced by JAX with the given params and args "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]}); make sure that "
            "jax.jit(fn)(params, *args) runs"
        ) from error
    return closed, output_tree


class _NotAnArray(Exception):
    """An output leaf has no shape and dtype."""
