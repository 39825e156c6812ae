"""The input and output axes of a matrix leaf.

Notation: x W = y with W of shape (I, O), I inputs and O outputs; further axes stack matrices.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from sibert_jax.optim.blocks import leaf_names

AxesOrFn = MuonDimensionNumbers | optax.Params | Callable[[optax.Params], Any] | None
Units = Literal["input", "output"]


class MatrixAxes(NamedTuple):
    """The axes of one leaf, as non-negative numbers.

    Attributes:
      inputs: the axes that x W = y sums over.
      outputs: the axes of y.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def of_each(self, units: Units) -> tuple[int, ...]:
        """Return the axes of the vector that belongs to one unit."""
        return self.inputs if units == "output" else self.outputs


def check_units(units: Units) -> None:
    """Raise ValueError unless `units` is one of the two kinds."""
    if units not in ("input", "output"):
        raise ValueError(f"units must be 'input' or 'output', found {units!r}.")


def leaf_axes(axes: AxesOrFn, tree: optax.Params) -> list[MatrixAxes | None]:
    """Return the axes of every leaf of `tree`, None for a leaf that is not a matrix.

    Args:
      axes: None for the last two axes (I, O) of every leaf with two or more; one
        `optax.contrib.MuonDimensionNumbers` for all leaves; a tree of them, with None for leaves
        that are not matrices; or a function from the parameters to such a tree.
      tree: the parameters or updates.

    Raises:
      ValueError: a leaf has no entry, or an axis is missing or named twice.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    given = axes(tree) if callable(axes) else axes
    if given is None:
        default = MuonDimensionNumbers(-2, -1)
        found = [default if jnp.ndim(leaf) >= 2 else None for _, leaf in leaves]
    elif isinstance(given, MuonDimensionNumbers):
        found = [given] * len(leaves)
    else:
        entries = dict(jax.tree_util.tree_leaves_with_path(given, is_leaf=_is_entry))
        found = [entries.get(path, "none given") for path, _ in leaves]
    return [
        entry if entry is None else _resolved(entry, jnp.ndim(leaf), index, tree)
        for index, (entry, (_, leaf)) in enumerate(zip(found, leaves))
    ]


def _is_entry(node: Any) -> bool:
    return node is None or isinstance(node, MuonDimensionNumbers)


def _resolved(entry: Any, ndim: int, index: int, tree: optax.Params) -> MatrixAxes:
    def several(axes) -> tuple[int, ...]:
        return (axes,) if isinstance(axes, int) else tuple(axes)

    if isinstance(entry, MuonDimensionNumbers):
        inputs, outputs = several(entry.reduction_axis), several(entry.output_axis)
        named = [axis % ndim for axis in inputs + outputs if -ndim <= axis < ndim]
        if inputs and outputs and len(set(named)) == len(inputs + outputs):
            return MatrixAxes(tuple(named[: len(inputs)]), tuple(named[len(inputs) :]))
    raise ValueError(
        f"leaf {leaf_names(tree)[index]} with {ndim} axes has the matrix axes {entry!r}; give "
        "MuonDimensionNumbers(reduction_axis, output_axis) of different axes, or None."
    )
