"""The inputs of an analysis: parameter leaves and their names, masks over them, and the jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ARRAY_TYPES = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


class _NotAnArray(Exception):
    """An output leaf has no shape and dtype."""


def is_array(leaf: Any) -> bool:
    """Tell whether a leaf is an array or its shape; anything else is static."""
    return isinstance(leaf, ARRAY_TYPES) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def is_parameter(leaf: Any) -> bool:
    """Tell whether a leaf can be scaled: a floating-point or complex array."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def name_of(path: tuple) -> str:
    """Write a key path with slashes: "encoder/layer_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "params"


def _unboxed(tree: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yield (path, leaf), skipping the `value` of boxes (nodes with no other child, as in NNX)."""
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)[0]
    keys = [key for key, _ in children]
    if keys == [()]:
        yield path, tree
        return
    is_box = path and keys == [(jax.tree_util.GetAttrKey("value"),)]
    for key, child in children:
        yield from _unboxed(child, path if is_box else path + key)


def flatten(params: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Return (name, leaf) pairs and the tree's structure.

    Raises:
        ValueError: if no leaf is a floating array.
    """
    pairs, structure = list(_unboxed(params)), jax.tree.structure(params)
    named = [(name_of(path), leaf) for path, leaf in pairs]
    if len({name for name, _ in named}) < len(named):  # a key contains a slash
        named = [(jax.tree_util.keystr(path), leaf) for path, leaf in pairs]
    if not any(is_parameter(leaf) for _, leaf in named):
        found = ", ".join(sorted({_kind(leaf) for _, leaf in named})) or "no leaves at all"
        raise ValueError(
            f"params has no floating-point array among its leaves (found: {found}); pass the tree "
            "of weights, e.g. variables['params'], with Python numbers wrapped by jnp.asarray"
        )
    return named, structure


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype} array" if is_array(leaf) else type(leaf).__name__


def exponents_of(mask: Any, params: Any) -> list[Fraction]:
    """Return the exponent of every leaf: 1 where `mask` is True, 0 where it is False.

    Args:
        mask: None (every floating leaf), or a tree of bools that is a prefix of `params`; a tree of
            numbers gives the exponents themselves.
        params: the parameter tree.

    Raises:
        ValueError: if the mask does not fit, or covers no floating leaf.
    """
    named, structure = flatten(params)
    if mask is None:
        return [Fraction(int(is_parameter(leaf))) for _, leaf in named]
    try:
        spread = jax.tree.map(lambda m, part: jax.tree.map(lambda _: m, part), mask, params)
        values = structure.flatten_up_to(spread)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            "mask does not fit params: give a tree of bools with the structure of params or a "
            f"prefix of it ({str(error).splitlines()[0]})"
        ) from error
    exponents = [
        Fraction(_number(value, name)) if is_parameter(leaf) else Fraction(0)
        for (name, leaf), value in zip(named, values, strict=True)
    ]
    if not any(exponents):
        raise ValueError(
            "mask selects no floating-point leaf of params; mark at least one leaf True, or pass "
            "mask=None for all of them"
        )
    return exponents


def _number(value: Any, name: str) -> Any:
    if isinstance(value, np.ndarray | np.generic | jax.Array) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    if isinstance(value, bool | int | float | Fraction):
        return value
    raise ValueError(
        f"mask has {type(value).__name__} {value!r} at leaf {name}; wanted a bool (or an exponent)"
    )


def _abstract(leaf: Any) -> Any:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jax.ShapeDtypeStruct(np.shape(leaf), dtype)


def trace(fn: Callable, params: Any, args: tuple) -> tuple[Any, Any]:
    """Return the closed jaxpr of fn(params, *args) over all array leaves, and the output structure.

    Leaves that are not arrays (functions, strings, Python numbers) are static.

    Raises:
        ValueError: if `fn` cannot be traced, or returns something that is not an array.
    """
    flat, structure = jax.tree.flatten((params, args))
    dynamic = [i for i, leaf in enumerate(flat) if is_array(leaf)]
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
            if not isinstance(leaf, (*ARRAY_TYPES, bool, int, float, complex)):
                where = f" at output {name_of(path)!r}" if path else ""
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
