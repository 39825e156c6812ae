"""Where every array lies on the mesh: one table from parameter path to mesh axes.

The batch is split over `data` and `fsdp`, parameters over `fsdp` (to save memory) and `tensor` (to
split the matrix products); sequences stay whole. Optimizer state that mirrors the parameters
follows their rule, anything else is replicated.
"""

import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.train.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# Regex on "a/b/c" -> axes of the last dimensions; leading ones (stacked layers) stay whole.
# Every parameter must match exactly one row.
RULES = (
    (r"encoder/embed/token|head/output", P("tensor", "fsdp")),  # V, D
    (r"encoder/embed/(position|segment)|head/nsp", P(None, "fsdp")),  # rows, D
    (r"encoder/stem/kernel|head/(transform|pooler)/kernel", P("fsdp", "tensor")),  # D, D
    (r"encoder/layers/.+/attention/(query|key|value)/kernel", P("fsdp", "tensor", None)),  # D, H, K
    (r"encoder/layers/.+/attention/(query|key|value)/bias", P("tensor", None)),  # H, K
    (r"encoder/layers/.+/attention/out/kernel", P("tensor", None, "fsdp")),  # H, K, D
    (r"encoder/layers/.+/ffn/up/kernel", P("fsdp", "tensor")),  # D, F
    (r"encoder/layers/.+/ffn/up/bias", P("tensor")),  # F
    (r"encoder/layers/.+/ffn/down/kernel", P("tensor", "fsdp")),  # F, D
    (r"encoder/layers/.+/(attention/out|ffn/down)/bias", P(None)),  # D
    (r"encoder/(embed_norm|layers/.+_norm)/(scale|bias)|head/transform_norm/.+", P(None)),  # D
    (r"head/output_bias", P("tensor")),  # V
    (r"head/(nsp|classifier|span)/kernel", P("fsdp", None)),  # D, labels
    (r"head/(transform|pooler|nsp|classifier|span)/bias", P(None)),  # D or labels
)


def make_mesh(data: int, fsdp: int, tensor: int, devices=None) -> Mesh:
    """A mesh data × fsdp × tensor; -1 in one place takes all the devices that are left."""
    devices = jax.devices() if devices is None else devices
    sizes = dict(zip(AXES, (data, fsdp, tensor)))
    free = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or min(sizes.values()) < -1 or 0 in sizes.values():
        raise ConfigError(f"mesh={sizes}: give positive sizes, and -1 in at most one place.")
    if free:
        if len(devices) % known:
            raise ConfigError(f"mesh={sizes}: {len(devices)} devices do not divide by {known}.")
        sizes[free[0]] = len(devices) // known
    elif known != len(devices):
        raise ConfigError(
            f"mesh={sizes} needs {known} devices and {len(devices)} are here; set one size to -1."
        )
    grid = np.asarray(devices).reshape(tuple(sizes.values()))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def path_name(path) -> str:
    """ "a/b/c" of a key path of jax.tree_util."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_for(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The PartitionSpec of the parameter `name`, checked against its shape."""
    matching = [spec for pattern, spec in RULES if re.fullmatch(pattern, name)]
    if len(matching) != 1:
        raise ValueError(
            f"parameter {name} {shape} matches {len(matching)} rules of train/sharding.py and "
            "needs exactly one; every parameter has its own row."
        )
    spec = P(*(None,) * (len(shape) - len(matching[0])), *matching[0])
    for size, axis in zip(shape, spec):
        if axis is not None and size % mesh.shape[axis]:
            raise ConfigError(
                f"parameter {name} {shape}: {size} does not divide by mesh.{axis}="
                f"{mesh.shape[axis]}; change the mesh or the model's sizes."
            )
    return spec


def param_shardings(params, mesh: Mesh):
    """NamedSharding of every parameter; `params` may hold arrays or ShapeDtypeStructs."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_for(path_name(path), leaf.shape, mesh)), params
    )


def state_shardings(state, params, mesh: Mesh):
    """Shardings of a tree that may hold copies of the parameter tree, as optimizer states do.

    A leaf whose path ends in a parameter's path and has its shape lies where the parameter lies;
    every other leaf is replicated.
    """
    by_name = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def sharding(path, leaf):
        name = path_name(path)
        for start in (match.start() for match in re.finditer(r"(?<![^/])(encoder|head)/", name)):
            suffix = name[start:]
            if suffix in by_name and by_name[suffix].shape == leaf.shape:
                return NamedSharding(mesh, spec_for(suffix, leaf.shape, mesh))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def local_rows(mesh: Mesh, global_batch_size: int) -> slice:
    """The rows of a global batch that this process loads."""
    shards = batch_sharding(mesh).addressable_devices_indices_map((global_batch_size,))
    rows = [index[0].indices(global_batch_size)[:2] for index in shards.values()]
    return slice(min(start for start, _ in rows), max(stop for _, stop in rows))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh, global_batch_size: int):
    """Global arrays from this process's rows."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            sharding, rows, (global_batch_size, *rows.shape[1:])
        )
        for name, rows in batch.items()
    }
