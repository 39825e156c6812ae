"""Reads a checkpoint whole, on the host, and compares it with its manifest."""

import gc
import logging
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.digest import digest
from sibert_jax.errors import CorruptError

ITEMS = ("params", "rest")
READ_BYTES = 1 << 26


def verify(path: pathlib.Path) -> manifests.Manifest:
    """Checks every file and every leaf of a checkpoint against its manifest.

    Returns:
      The manifest.

    Raises:
      CorruptError: what is wrong, as the end of a sentence.
    """
    manifest = manifests.read(path)
    manifests.check_files(path, manifest)
    missing = set(manifest.leaves)
    for item in ITEMS:
        for name, array in read_leaves(path, item):
            if name not in missing:
                raise CorruptError(f"leaf {name} is not in the manifest")
            check_leaf(name, array, manifest.leaves[name])
            missing.remove(name)
    if missing:
        raise CorruptError(f"leaf {min(missing)} is missing")
    return manifest


def problem_of(path: pathlib.Path) -> str:
    """What is wrong with a checkpoint, as the end of a sentence; "" if it verifies."""
    try:
        verify(path)
    except CorruptError as error:
        return f"{error}."
    return ""


def check_leaf(name: str, array: np.ndarray, stated: dict) -> None:
    """Compares shape, dtype and digest with the manifest's; raises CorruptError."""
    if list(array.shape) != stated["shape"] or str(array.dtype) != stated["dtype"]:
        raise CorruptError(
            f"leaf {name} is {array.shape} {array.dtype} instead of {tuple(stated['shape'])} "
            f"{stated['dtype']}"
        )
    if digest(array) != stated["digest"]:
        raise CorruptError(f"the numbers of leaf {name} have changed since they were written")


def read_leaves(path: pathlib.Path, item: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of "params" or "rest" by name, on the host, without contacting other processes.

    READ_BYTES or one leaf at a time, so that a state need not fit in memory.

    Raises:
      CorruptError: Orbax cannot read them.
    """
    handler = ocp.PyTreeCheckpointHandler()
    tree = _readable(item, lambda: handler.metadata(path / item).tree)
    paths, treedef = jax.tree_util.tree_flatten_with_path({item: tree})
    names = [jax.tree_util.keystr(key, simple=True, separator="/") for key, _ in paths]
    to_numpy = treedef.unflatten([ocp.RestoreArgs(restore_type=np.ndarray)] * len(names))[item]
    for group in _groups([math.prod(leaf.shape) * leaf.dtype.itemsize for _, leaf in paths]):
        wanted = [0 if i in group else ocp.PLACEHOLDER for i in range(len(names))]
        arguments = ocp.args.PyTreeRestore(
            item=treedef.unflatten(wanted)[item], restore_args=to_numpy
        )
        what = " to ".join(dict.fromkeys((names[group[0]], names[group[-1]])))
        restored = _readable(what, lambda a=arguments: handler.restore(path / item, args=a))
        leaves = jax.tree.leaves(restored)
        yield from ((names[i], leaves[i]) for i in group)


def _groups(sizes: list[int]) -> Iterator[range]:
    """Runs of leaves, of READ_BYTES at most or a single one. Each read costs Orbax 10 ms."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > READ_BYTES:
            yield range(start, stop)
            start = stop


def _readable(what: str, read):
    failure = None
    try:
        return read()
    except Exception as error:  # Orbax raises many kinds, all of them about these files
        failure = error
    # The other reads that it started come back to an event loop that is closed, and say so, as do
    # coroutines that nothing waits for any more. The first message says it all.
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


def named(tree) -> dict:
    """{"a/b/c": leaf} of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
