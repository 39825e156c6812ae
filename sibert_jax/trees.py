"""Paths of leaves in pytrees."""

from typing import Any

import jax


def path_name(path: tuple) -> str:
    """Formats a key path of `jax.tree_util` as "a/b/c"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nest(flat: dict[str, Any]) -> dict:
    """Nests a flat dict: {"a/b": leaf} becomes {"a": {"b": leaf}}.

    Example:
      >>> nest({"a/b": 1, "a/c": 2})
      {'a': {'b': 1, 'c': 2}}
    """
    tree: dict = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
