"""Paths of leaves in trees of arrays."""

import jax


def path_name(path: tuple) -> str:
    """ "a/b/c" of a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
