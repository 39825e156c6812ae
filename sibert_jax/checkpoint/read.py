"""Reads checkpoints, on the host to verify them or onto a mesh; both compare digests."""

import gc
import logging
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.collectives import add
from sibert_jax.checkpoint.manifest import (
    ITEMS,
    Manifest,
    as_text,
    digest,
    own_parts,
    partial_digest,
)
from sibert_jax.errors import CheckpointError, CorruptError

READ_BYTES = 1 << 26
WHOLE = (0, 1)


def verify(path: pathlib.Path, share: tuple[int, int] = WHOLE) -> Manifest:
    """Checks the files and the leaves of a checkpoint against its manifest.

    Args:
      path: the checkpoint's directory.
      share: (i, n), to read only the i-th of n shares of the leaves.

    Returns:
      The manifest.

    Raises:
      CorruptError: with what is wrong, as the end of a sentence.
    """
    manifest = manifests.read(path)
    manifests.check_files(path, manifest)
    found = {name for item in ITEMS for name in _StoredTree(path, item).names}
    if unknown := found - manifest.leaves.keys():
        raise CorruptError(f"leaf {min(unknown)} is not in the manifest")
    if missing := manifest.leaves.keys() - found:
        raise CorruptError(f"leaf {min(missing)} is missing")
    for item in ITEMS:
        for name, array in read_leaves(path, item, share):
            _check_leaf(name, array, manifest.leaves[name])
    return manifest


def problem_of(path: pathlib.Path, share: tuple[int, int] = WHOLE) -> str:
    """Returns the fault of a checkpoint, as the end of a sentence; "" if it verifies."""
    try:
        verify(path, share)
    except CorruptError as error:
        return f"{error}."
    return ""


def _check_leaf(name: str, array: np.ndarray, stated: dict) -> None:
    if list(array.shape) != stated["shape"] or str(array.dtype) != stated["dtype"]:
        raise CorruptError(
            f"leaf {name} is {array.shape} {array.dtype} instead of {tuple(stated['shape'])} "
            f"{stated['dtype']}"
        )
    if digest(array) != stated["digest"]:
        raise CorruptError(f"the numbers of leaf {name} have changed since they were written")


def read_leaves(
    path: pathlib.Path, item: str, share: tuple[int, int] = WHOLE
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of "params" or "rest" by name, on the host, without other processes.

    Reads READ_BYTES or one leaf at a time, so that a state need not fit into memory.

    Args:
      path: the checkpoint's directory.
      item: one of ITEMS.
      share: (i, n), to read only the i-th of n shares.

    Raises:
      CorruptError: Orbax cannot read them.
    """
    tree, (first, count) = _StoredTree(path, item), share
    for group in _groups(tree.sizes)[first::count]:
        yield from tree.read(group)


class _StoredTree:
    """One item of a checkpoint, as described by Orbax's metadata."""

    def __init__(self, path: pathlib.Path, item: str):
        self._path, self._item = path / item, item
        self._handler = ocp.PyTreeCheckpointHandler()
        tree = _readable(item, lambda: self._handler.metadata(self._path).tree)
        leaves, self._treedef = jax.tree_util.tree_flatten_with_path({item: tree})
        self.names = [_name(key) for key, _ in leaves]
        self.sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for _, leaf in leaves]

    def read(self, group: range) -> Iterator[tuple[str, np.ndarray]]:
        unflatten, count = self._treedef.unflatten, len(self.names)
        arguments = ocp.args.PyTreeRestore(
            item=unflatten([0 if i in group else ocp.PLACEHOLDER for i in range(count)])[
                self._item
            ],
            restore_args=unflatten([ocp.RestoreArgs(restore_type=np.ndarray)] * count)[self._item],
        )
        what = " to ".join(dict.fromkeys((self.names[group[0]], self.names[group[-1]])))
        restored = _readable(what, lambda: self._handler.restore(self._path, args=arguments))
        leaves = jax.tree.leaves(restored)
        return ((self.names[i], leaves[i]) for i in group)


def _groups(sizes: list[int]) -> list[range]:
    """Returns groups of consecutive leaves, up to READ_BYTES each: a read costs Orbax 10 ms."""
    groups, start = [], 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > READ_BYTES:
            groups.append(range(start, stop))
            start = stop
    return groups


def _readable(what: str, read: Callable[[], Any]) -> Any:
    failure = None
    try:
        return read()
    except Exception as error:  # Orbax may raise anything here, always about these files
        failure = error
    # The other reads that it started return to a closed event loop and complain, as do coroutines
    # that nothing awaits any more. The first message is enough.
    logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
    before, logger.disabled = logger.disabled, True
    sys.unraisablehook = lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        reason = next(iter(str(failure).splitlines()), type(failure).__name__)
        failure = None
        time.sleep(0.2)
        gc.collect()
    logger.disabled, sys.unraisablehook = before, hook
    raise CorruptError(f"{what} cannot be read ({reason[:200]})")


def manifest_of(path: pathlib.Path) -> Manifest:
    """Returns the manifest of a checkpoint; raises CheckpointError with a complete sentence."""
    try:
        return manifests.read(path)
    except CorruptError as error:
        raise CheckpointError(f"checkpoint {path} cannot be used: {error}.") from None


def restore_items(
    path: pathlib.Path, wanted: dict[str, Any], partial: bool = False
) -> dict[str, Any]:
    """Reads some of the trees of a checkpoint onto any mesh; each process digests its own shards.

    Args:
      path: the checkpoint's directory.
      wanted: "params", "rest" or both: trees of ShapeDtypeStructs with shardings; without a
        sharding, the default device is used.
      partial: whether a stored tree may have more leaves than are wanted.

    Raises:
      CheckpointError: as for `Checkpoints.restore`.
    """
    manifest, leaves = manifest_of(path), named(wanted)
    stored = {
        name: leaf
        for name, leaf in manifest.leaves.items()
        if name.startswith(tuple(f"{item}/" for item in wanted)) and (name in leaves or not partial)
    }
    manifests.check_same_leaves(str(path), stored, leaves)
    try:
        restored = {item: _restore(path / item, tree) for item, tree in wanted.items()}
    except Exception as error:  # Orbax may raise anything here, always about these files
        raise CheckpointError(f"checkpoint {path} cannot be restored: {error}.") from error
    sums = {
        name: sum(partial_digest(part, where, leaf.shape) for part, where in own_parts(leaf))
        for name, leaf in named(restored).items()
    }
    for name, total in add(sums).items():
        if as_text(total) != stored[name]["digest"]:
            raise CheckpointError(
                f"leaf {name} of checkpoint {path} is not what was saved; run "
                f"`python -m sibert_jax.checkpoint verify {path.parent}`, then run again."
            )
    # Copied, as Orbax's arrays may share memory with buffers that JAX must not donate.
    return jax.tree.map(jnp.copy, restored)


def _restore(path: pathlib.Path, tree: Any) -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here),
        tree,
    )
    arguments = ocp.args.PyTreeRestore(
        item=tree,
        restore_args=ocp.checkpoint_utils.construct_restore_args(tree),
        partial_restore=True,  # all leaves have been checked to exist
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        return orbax.restore(path, args=arguments)


def named(tree: Any) -> dict[str, Any]:
    """Returns {"a/b/c": leaf} for a tree."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
