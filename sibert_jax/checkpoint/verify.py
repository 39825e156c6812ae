"""Reads a checkpoint whole, on the host, and compares it with its manifest."""

import gc
import pathlib
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.digest import digest
from sibert_jax.checkpoint.errors import CorruptError

ITEMS = ("params", "rest")


def verify(path: pathlib.Path) -> manifests.Manifest:
    """Checks every file and every leaf of a checkpoint against its manifest.

    Returns:
      The manifest.

    Raises:
      CorruptError: what is wrong, as the end of a sentence.
    """
    manifest = manifests.read(path)
    manifests.check_files(path, manifest)
    for item in ITEMS:
        check_leaves(read_leaves(path, item), manifest, item)
    return manifest


def problem_of(path: pathlib.Path) -> str:
    """What is wrong with a checkpoint, as the end of a sentence; "" if it verifies."""
    try:
        verify(path)
    except CorruptError as error:
        return f"{error}."
    return ""


def check_leaves(leaves: dict[str, np.ndarray], manifest: manifests.Manifest, item: str) -> None:
    """Compares names, shapes, dtypes and digests; raises CorruptError."""
    stated = {name: leaf for name, leaf in manifest.leaves.items() if name.startswith(f"{item}/")}
    if different := sorted(stated.keys() ^ leaves.keys()):
        where = "missing" if different[0] in stated else "not in the manifest"
        raise CorruptError(f"leaf {different[0]} is {where}")
    for name, leaf in stated.items():
        found = leaves[name]
        if list(found.shape) != leaf["shape"] or str(found.dtype) != leaf["dtype"]:
            raise CorruptError(f"leaf {name} is {found.shape} {found.dtype}, was written as {leaf}")
        if digest(found) != leaf["digest"]:
            raise CorruptError(f"the numbers of leaf {name} have changed since they were written")


def read_leaves(path: pathlib.Path, item: str) -> dict[str, np.ndarray]:
    """The arrays of "params" or "rest", by name, on the host of this process alone.

    Raises:
      CorruptError: Orbax cannot read them.
    """
    failure = None
    try:
        handler = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(path / item).tree
        to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = handler.restore(path / item, args=ocp.args.PyTreeRestore(restore_args=to_numpy))
        return named({item: restored})
    except Exception as error:  # Orbax raises many kinds, all of them about these files
        failure = error
    # A failed read leaves coroutines that complain on stderr when they are collected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reason = next(iter(str(failure).splitlines()), type(failure).__name__)
        failure = None
        gc.collect()
    raise CorruptError(f"its {item} cannot be read ({reason[:200]})")


def named(tree) -> dict:
    """{"a/b/c": leaf} of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
