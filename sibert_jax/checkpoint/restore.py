"""Reads trees of a checkpoint onto any mesh, and proves that they are what was saved."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint import processes
from sibert_jax.checkpoint.compare import check_same_leaves
from sibert_jax.checkpoint.digest import as_text, own_parts, partial_digest
from sibert_jax.checkpoint.manifest import Manifest
from sibert_jax.checkpoint.verify import named
from sibert_jax.errors import CheckpointError, CorruptError


def manifest_of(path: pathlib.Path) -> Manifest:
    """The manifest of a checkpoint; raises CheckpointError with a whole sentence."""
    try:
        return manifests.read(path)
    except CorruptError as error:
        raise CheckpointError(f"checkpoint {path} cannot be used: {error}.") from None


def restore_items(
    path: pathlib.Path, wanted: dict[str, Any], partial: bool = False
) -> dict[str, Any]:
    """Reads some of the trees of a checkpoint onto any mesh.

    Args:
      path: the checkpoint's directory.
      wanted: "params", "rest" or both: trees of ShapeDtypeStructs with shardings; one without is
        put on the default device.
      partial: whether a tree that is stored may have more leaves than are wanted.

    Raises:
      CheckpointError: as `Checkpoints.restore`.
    """
    manifest, leaves = manifest_of(path), named(wanted)
    stored = {
        name: leaf
        for name, leaf in manifest.leaves.items()
        if name.startswith(tuple(f"{item}/" for item in wanted)) and (name in leaves or not partial)
    }
    check_same_leaves(str(path), stored, leaves)
    try:
        restored = {item: _restore(path / item, tree) for item, tree in wanted.items()}
    except Exception as error:  # Orbax raises many kinds, all of them about these files
        raise CheckpointError(f"checkpoint {path} cannot be restored: {error}.") from error
    sums = {
        name: sum(partial_digest(part, where, leaf.shape) for part, where in own_parts(leaf))
        for name, leaf in named(restored).items()
    }
    for name, total in processes.add(sums).items():
        if as_text(total) != stored[name]["digest"]:
            raise CheckpointError(
                f"leaf {name} of checkpoint {path} is not what was saved; run "
                f"`python -m sibert_jax.checkpoint verify {path.parent}`, then run again."
            )
    # Copies, as Orbax's arrays may share memory with buffers that are not JAX's to donate.
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
        partial_restore=True,  # that all leaves are there has been checked
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        return orbax.restore(path, args=arguments)
