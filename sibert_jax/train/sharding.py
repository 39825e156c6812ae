"""Shardings: tables that map parameter paths and activations to mesh axes.

The batch is split over `data` and `fsdp`, parameters over `fsdp` (to save memory) and `tensor` (to
split the matrix products); sequences are not split. Optimizer state that mirrors the parameters
follows their rules; everything else is replicated.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.errors import ConfigError
from sibert_jax.model import with_sharding_rules
from sibert_jax.tasks.task import Batch, Batches
from sibert_jax.trees import path_name

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# Regular expression of a parameter's path -> axes of its last dimensions; leading ones (stacked
# layers) are not split. The rules of the head come from the task (`TaskType.sharding`); every
# parameter must match exactly one rule.
Rules = tuple[tuple[str, P], ...]
ENCODER: Rules = (
    (r"encoder/embed/token", P("tensor", "fsdp")),  # V, D
    (r"encoder/embed/(position|segment)", P(None, "fsdp")),  # rows, D
    (r"encoder/stem/kernel", P("fsdp", "tensor")),  # D, D
    (r"encoder/layers/.+/attention/(query|key|value)/kernel", P("fsdp", "tensor", None)),  # D, H, K
    (r"encoder/layers/.+/attention/(query|key|value)/bias", P("tensor", None)),  # H, K
    (r"encoder/layers/.+/attention/out/kernel", P("tensor", None, "fsdp")),  # H, K, D
    (r"encoder/layers/.+/ffn/up/kernel", P("fsdp", "tensor")),  # D, F
    (r"encoder/layers/.+/ffn/up/bias", P("tensor")),  # F
    (r"encoder/layers/.+/ffn/down/kernel", P("tensor", "fsdp")),  # F, D
    (r"encoder/layers/.+/(attention/out|ffn/down)/bias", P(None)),  # D
    (r"encoder/(embed_norm|final_norm|layers/.+_norm)/(scale|bias)", P(None)),  # D
)

# Letter of an activation's dimension (model/config.py) -> mesh axes; others are not split.
ACTIVATIONS = {
    "B": ("data", "fsdp"),
    "T": ("data", "fsdp"),
    "H": "tensor",
    "F": "tensor",
    "V": "tensor",
}


def make_mesh(data: int, fsdp: int, tensor: int, devices=None) -> Mesh:
    """Creates a mesh data × fsdp × tensor; one -1 stands for all remaining devices."""
    devices = jax.devices() if devices is None else devices
    sizes = dict(zip(AXES, (data, fsdp, tensor)))
    free = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or min(sizes.values()) < -1 or 0 in sizes.values():
        raise ConfigError(f"mesh={sizes}: give positive sizes, and -1 in at most one place.")
    if free:
        if len(devices) % known:
            raise ConfigError(f"mesh={sizes}: {len(devices)} devices are not divisible by {known}.")
        sizes[free[0]] = len(devices) // known
    elif known != len(devices):
        raise ConfigError(
            f"mesh={sizes} needs {known} devices, but {len(devices)} are available; set one size "
            "to -1."
        )
    # The last axes vary fastest, so `tensor` and then `fsdp`, which communicate several times per
    # layer, stay within a host, while `data`, which sums gradients once per step, goes across. On a
    # TPU slice, where hosts do not matter, JAX maps the axes to the torus instead.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    num_slices = len({_tpu_slice(device) for device in devices})
    if num_slices > 1:
        return Mesh(_over_slices(sizes, num_slices, devices), AXES, (AxisType.Auto,) * 3)
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def _tpu_slice(device: jax.Device) -> int:
    return getattr(device, "slice_index", 0) if device.platform == "tpu" else 0


def _over_slices(sizes: dict[str, int], num_slices: int, devices: list[jax.Device]) -> np.ndarray:
    """Arranges TPU slices along `data`, as the network between them is slow."""
    if sizes["data"] % num_slices:
        raise ConfigError(
            f"mesh={sizes}: the devices are {num_slices} TPU slices, and only mesh.data can span "
            f"slices; make mesh.data a multiple of {num_slices}."
        )
    within = (sizes["data"] // num_slices, sizes["fsdp"], sizes["tensor"])
    return mesh_utils.create_hybrid_device_mesh(within, (num_slices, 1, 1), devices)


def spec_for(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> P:
    """Returns the PartitionSpec of the parameter `name`, checked against its shape."""
    matching = [spec for pattern, spec in rules if re.fullmatch(pattern, name)]
    if len(matching) != 1:
        raise ValueError(
            f"parameter {name} {shape} matches {len(matching)} sharding rules and needs exactly "
            "one: those of the encoder are in train/sharding.py, those of a head with its task."
        )
    spec = P(*(None,) * (len(shape) - len(matching[0])), *matching[0])
    for size, axis in zip(shape, spec):
        if axis is not None and size % mesh.shape[axis]:
            fits = [str(n) for n in range(1, mesh.size + 1) if size % n == 0]
            raise ConfigError(
                f"parameter {name} {shape} is split by mesh.{axis}={mesh.shape[axis]}, which does "
                f"not divide {size}; sizes that divide it: {', '.join(fits)}."
            )
    return spec


def param_shardings(params, mesh: Mesh, head: Rules):
    """Returns the NamedSharding of every parameter.

    Args:
      params: arrays or ShapeDtypeStructs.
      mesh: data × fsdp × tensor.
      head: the task's rules for the head.
    """
    rules = (*ENCODER, *head)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_for(path_name(path), leaf.shape, mesh, rules)),
        params,
    )


def state_shardings(state, params, mesh: Mesh):
    """Returns shardings of a tree that may contain copies of the parameters (optimizer state).

    A leaf whose path ends in a parameter's path and has its shape is sharded like the parameter;
    all other leaves are replicated.

    Args:
      state: arrays or ShapeDtypeStructs.
      params: likewise, with their shardings.
      mesh: data × fsdp × tensor.
    """
    by_name = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def sharding(path, leaf):
        name = path_name(path)
        for start in (match.start() for match in re.finditer(r"(?<![^/])(encoder|head)/", name)):
            suffix = name[start:]
            if suffix in by_name and by_name[suffix].shape == leaf.shape:
                return by_name[suffix].sharding
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, state)


def placed(abstract, shardings):
    """Returns ShapeDtypeStructs with shardings."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )


def on_mesh(fn: Callable, mesh: Mesh) -> Callable:
    """Returns `fn` with activations constrained as in ACTIVATIONS; jit the result."""
    return with_sharding_rules(fn, _Activations(mesh))


@dataclasses.dataclass(frozen=True)
class _Activations:
    """The sharding rules of ACTIVATIONS on a mesh; see `model.ShardingRules`."""

    mesh: Mesh

    def constrain(self, x: jax.Array, letters: str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, _spec(letters)))

    def shard_map(
        self, fn: Callable, in_letters: Sequence[str], out_letters: Sequence[str]
    ) -> Callable:
        # Nothing is summed over devices here, so `check_vma` has nothing to check.
        return jax.shard_map(
            fn,
            mesh=self.mesh,
            in_specs=tuple(map(_spec, in_letters)),
            out_specs=tuple(map(_spec, out_letters)),
            check_vma=False,
        )


def _spec(letters: str) -> P:
    return P(*(ACTIVATIONS.get(letter) for letter in letters))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def local_rows(mesh: Mesh, global_batch_size: int) -> tuple[slice, ...]:
    """Returns the contiguous ranges of a global batch's rows that this process loads.

    A single range if the mesh follows the hosts. Processes that share rows, such as when `tensor`
    spans hosts, each load them.
    """
    shards = batch_sharding(mesh).addressable_devices_indices_map((global_batch_size,))
    runs: list[list[int]] = []
    for start, stop in sorted(
        {index[0].indices(global_batch_size)[:2] for index in shards.values()}
    ):
        if runs and runs[-1][1] == start:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    return tuple(slice(*run) for run in runs)


def load_batch(batches: Batches, index: int, mesh: Mesh, global_batch_size: int) -> Batch:
    """Loads the global batch of a step; each process loads the rows of its own devices."""
    rows = local_rows(mesh, global_batch_size)
    return to_devices([batches.batch(index, run) for run in rows], rows, mesh, global_batch_size)


def to_devices(
    parts: Sequence[dict[str, np.ndarray]],
    rows: tuple[slice, ...],
    mesh: Mesh,
    global_batch_size: int,
) -> dict[str, jax.Array]:
    """Builds a global batch from this process's share.

    Args:
      parts: the arrays of each of `rows`.
      rows: the result of `local_rows`.
      mesh: the mesh to put the batch on.
      global_batch_size: B, the batch size over all processes.
    """
    sharding = batch_sharding(mesh)

    def array(name: str) -> jax.Array:
        def shard(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(global_batch_size)
            run, part = next(
                (run, part) for run, part in zip(rows, parts) if run.start <= start < run.stop
            )
            return part[name][start - run.start : stop - run.start]

        shape = (global_batch_size, *parts[0][name].shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return {name: array(name) for name in parts[0]}
