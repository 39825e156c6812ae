"""Blocks of a parameter tree: the sets of leaves that share a norm, and their float32 norms.

A *block* is a set of leaves with one norm. `blocks=None` makes one block of all leaves. A tree of
labels (or a prefix of one), or a function from the parameters to such a tree, makes one block per
label. The label `ROWS` makes every index of a leaf's first axis a block; `Rows("name")` every index
of all leaves with that name, as stacked layers need.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

AxisName = Hashable | tuple[Hashable, ...] | None
Keys = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The label that makes every index of a leaf's first axis a block.

    Attributes:
      name: leaves with the same name share one norm per index, so their first axes must have the
        same length; None: the leaf shares its norms with no other leaf.
    """

    name: str | None = None

    def __repr__(self) -> str:
        return "ROWS" if self.name is None else f"Rows({self.name!r})"


ROWS = Rows()
BlocksOrFn = optax.Params | Callable[[optax.Params], Any] | None


class Block(NamedTuple):
    """One block: its name, the positions of its leaves, and whether each row has its own norm."""

    name: str
    leaves: tuple[int, ...]
    rows: bool

    def norm(self, leaves: Sequence[jax.Array], axis_name: AxisName = None) -> jax.Array:
        """Return the float32 l2 norm over all its leaves: a scalar, or (rows,)."""
        return row_norms(leaves, axis_name) if self.rows else norm(leaves, axis_name)


def _is_hidden(node: Any) -> bool:
    """Tell whether a leaf is missing: None, or masked by optax."""
    return node is None or isinstance(node, optax.MaskedNode)


def _entries(tree: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield (keys, leaf) for every leaf, None and MaskedNode, in tree order.

    Keys are strings, so that trees of different node types can be compared. An attribute `value`
    without siblings is a box around a leaf (a flax variable) and adds no key: an optimizer may see
    the parameters boxed in `init` and unboxed in `update`.
    """
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)[0]
    paths = [path for path, _ in children]
    if _is_hidden(tree) or paths == [()]:
        yield keys, tree
        return
    is_box = paths == [(jax.tree_util.GetAttrKey("value"),)]
    for path, child in children:
        key = () if is_box else (jax.tree_util.keystr(path, simple=True),)
        yield from _entries(child, keys + key)


def _name(keys: Keys) -> str:
    return "/".join(keys) or "the only leaf"


def leaf_names(tree: optax.Params) -> list[str]:
    """Name every leaf the way a user writes it: `layer_0/kernel`.

    If two leaves would share a name because a key contains a slash, all are written
    `['layer_0']['kernel']`.
    """
    entries = list(_entries(tree))
    names = [_name(keys) for keys, _ in entries]
    if len(set(names)) < len(names):
        names = ["".join(f"[{key!r}]" for key in keys) for keys, _ in entries]
    return [name for name, (_, node) in zip(names, entries) if not _is_hidden(node)]


def floating_leaves(tree: optax.Params) -> list[Any]:
    """Return the leaves; raise ValueError, naming the leaf, if one is not floating point."""
    leaves = jax.tree.leaves(tree)
    for index, leaf in enumerate(leaves):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"leaf {leaf_names(tree)[index]} has dtype {dtype}; a floating-point dtype is "
                "needed: leave it out with optax.masked or optax.partition."
            )
    return leaves


def aligned(updates: optax.Updates, params: optax.Params) -> list[jax.Array | None]:
    """Return one update per leaf of `params`: None where `updates` is None at the leaf or above it.

    Raises:
      ValueError: the updates have a different structure.
    """

    def below(update, part):
        return jax.tree.map(lambda _: None, part) if update is None else update

    try:
        spread = jax.tree.map(below, updates, params, is_leaf=lambda update: update is None)
        return jax.tree.structure(params).flatten_up_to(spread)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the updates do not have the structure of the parameters ({reason}); give an array or "
            "None for every leaf of the parameters."
        ) from error


def like_updates(leaves: Sequence[jax.Array | None], updates: optax.Updates) -> optax.Updates:
    """Undo `aligned`: return leaves in the structure of `updates`, None where it holds None."""
    present = [leaf for leaf in leaves if leaf is not None]
    return jax.tree.unflatten(jax.tree.structure(updates), present)


def prefix_values(prefix: Any, tree: optax.Params, what: str) -> list[Any]:
    """Give every leaf of `tree` the value that `prefix` holds at the leaf or above it.

    Args:
      prefix: a tree whose leaves are the values, of the structure of `tree` or a prefix of it.
        Where `tree` holds None or an `optax.MaskedNode`, anything may stand in `prefix`.
      tree: the parameters or updates.
      what: a name for the values, used in the error message.

    Returns:
      The values in the order of `jax.tree.leaves(tree)`.

    Raises:
      ValueError: a leaf has no value, or a value has no leaf.
    """
    values = {keys: value for keys, value in _entries(prefix) if not _is_hidden(value)}
    result, used, hidden = [], set(), []
    for keys, node in _entries(tree):
        if _is_hidden(node):
            hidden.append(keys)
            continue
        found = [keys[:n] for n in range(len(keys) + 1) if keys[:n] in values]
        if not found:
            below = [_name(k) for k in values if k[: len(keys)] == keys]
            if below:
                raise ValueError(
                    f"leaf {_name(keys)} has more than one {what} ({', '.join(below)}): give one "
                    "value, not a tuple, list or dict."
                )
            raise ValueError(
                f"leaf {_name(keys)} has no {what}: give every leaf exactly one, at the leaf or at "
                "a node above it."
            )
        used.add(found[0])
        result.append(values[found[0]])
    for keys in values:
        under_hidden = any(keys[: len(h)] == h or h[: len(keys)] == keys for h in hidden)
        if result and keys not in used and not under_hidden:
            raise ValueError(f"the {what} at {'/'.join(keys)} matches no leaf of the parameters.")
    return result


def assign_blocks(blocks: BlocksOrFn, tree: optax.Params) -> tuple[Block, ...]:
    """Return the blocks of `tree`; () means one block of all leaves, or no leaves at all.

    Raises:
      ValueError: a leaf without a label, a label without a leaf, a label other than a string, an
        integer or ROWS, ROWS on a scalar leaf, or two labels with the same text.
    """
    leaves = jax.tree.leaves(tree)
    if blocks is None or not leaves:
        return ()
    labels = prefix_values(blocks(tree) if callable(blocks) else blocks, tree, "block label")
    members: dict[str, list[int]] = {}
    first: dict[str, Any] = {}
    for index, (leaf_name, leaf, label) in enumerate(zip(leaf_names(tree), leaves, labels)):
        if not isinstance(label, str | int | np.integer | Rows):
            raise ValueError(
                f"leaf {leaf_name} has the block label {label!r}; a label is a string, an integer "
                "or ROWS."
            )
        rows = isinstance(label, Rows)
        if rows and jnp.ndim(leaf) == 0:
            raise ValueError(f"leaf {leaf_name} is a scalar; ROWS needs a leaf with rows.")
        name = str(label) if not rows else leaf_name if label.name is None else label.name
        other = first.setdefault(name, label)
        if isinstance(other, Rows) != rows or (
            rows and (other.name is None) != (label.name is None)
        ):
            raise ValueError(f"the block label {name!r} is also that of a block of rows.")
        if isinstance(other, str) != isinstance(label, str):
            raise ValueError(
                f"the block labels {other!r} and {label!r} are both written {name}: rename one."
            )
        same = members.setdefault(name, [])
        if rows and same and jnp.shape(leaves[same[0]])[0] != jnp.shape(leaf)[0]:
            raise ValueError(
                f"leaf {leaf_name} has {jnp.shape(leaf)[0]} rows, and the block {name!r} that it "
                f"shares has {jnp.shape(leaves[same[0]])[0]}: give it another name."
            )
        same.append(index)
    return tuple(
        Block(name, tuple(members[name]), isinstance(first[name], Rows)) for name in members
    )


def widened(x: jax.Array) -> jax.Array:
    """Cast to float32 unless the dtype is at least as wide already."""
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def after(measured: jax.Array, tree: optax.Updates) -> optax.Updates:
    """Return the tree unchanged, but computed after the norm `measured` (never negative).

    Without this dependency XLA may copy all donated parameters for the norm to read before it
    writes them in place: one more pass over memory. NaN compares false, so it changes nothing.
    """
    impossible = measured < 0
    return jax.tree.map(lambda x: jnp.where(impossible, jnp.zeros_like(x), x), tree)


def power_of_two(size: jax.Array) -> jax.Array:
    """Return a power of two near a float32 size > 0; 1 for 0, inf and NaN.

    Dividing by it is exact.
    """
    usable = (size > 0) & (size < jnp.inf)
    # The exponent is in bits 23 to 30; jnp.frexp and jnp.ldexp need 90 operations for this.
    bits = jax.lax.bitcast_convert_type(jnp.where(usable, size, 1.0), jnp.int32)
    # One more than that of the number; clipped so that the inverse is a normal number too.
    exponent = jnp.clip((bits >> 23) + 1, 2, 252)
    return jax.lax.bitcast_convert_type(exponent << 23, jnp.float32)


def norm(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> jax.Array:
    """Return the float32 l2 norm over all leaves; 0 if there are none."""
    total = jnp.zeros([], jnp.float32)
    for leaf in leaves:
        total = total + jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    return jnp.sqrt(total if axis_name is None else jax.lax.psum(total, axis_name))


def row_norms(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> jax.Array:
    """Return the float32 l2 norm of every index of the first axis, over all leaves: (rows,)."""
    squares = sum(
        jnp.sum(jnp.square(leaf.astype(jnp.float32)), axis=tuple(range(1, leaf.ndim)))
        for leaf in leaves
    )
    return jnp.sqrt(squares if axis_name is None else jax.lax.psum(squares, axis_name))


def along_rows(factor: jax.Array, leaf: jax.Array) -> jax.Array:
    """Reshape a result of `Block.norm` so that it broadcasts against a leaf of the block."""
    return factor.reshape(factor.shape + (1,) * (leaf.ndim - 1)) if factor.ndim else factor
