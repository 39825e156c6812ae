"""The output of the commands, as lines of text; reads only on the host."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.manifest import AVERAGES, ITEMS, steps_in
from sibert_jax.checkpoint.read import problem_of, read_leaves, verify
from sibert_jax.errors import CheckpointError, CorruptError
from sibert_jax.files import atomically, flatten, share


def list_all(directory: pathlib.Path) -> Iterator[str]:
    """Yields a row per checkpoint; compares files, but not the contents of large ones."""
    steps = steps_in(directory)
    yield f"{'step':>10}  {'written (UTC)':<19}  {'size':>9}  found"
    for step in steps:
        path = directory / str(step)
        size = f"{manifests.size_of(path) / 1e6:.1f} MB"
        try:
            manifest = manifests.read(path)
            manifests.check_files(path, manifest)
            yield f"{step:>10}  {manifest.written[:19]:<19}  {size:>9}  files ok"
        except CorruptError as error:
            yield f"{step:>10}  {'':<19}  {size:>9}  BAD: {error}"
    for path in sorted(directory.glob("*.corrupt*")):
        yield f"{path.name}: moved aside when the run reached that step again"
    if steps:
        yield "files ok: all files exist and have the right sizes; `verify` checks their contents"


def verify_all(directory: pathlib.Path) -> tuple[list[str], bool]:
    """Returns a line per checkpoint, and whether all verify; reads everything."""
    steps = steps_in(directory)
    if not steps:
        raise CheckpointError(f"{directory} holds no checkpoint.")
    problems = {step: problem_of(directory / str(step)) for step in steps}
    lines = [f"{step}: {f'BAD: {text}' if text else 'verified'}" for step, text in problems.items()]
    return lines, not any(problems.values())


def show(path: pathlib.Path) -> Iterator[str]:
    """Yields the manifest of a checkpoint and a table of its leaves."""
    manifest = manifests.read(path)
    sizes = {name: _num_bytes(leaf) for name, leaf in manifest.leaves.items()}
    yield f"{path}, written {manifest.written}"
    yield f"by {manifest.processes} process(es); " + ", ".join(
        f"{package} {version}" for package, version in manifest.versions.items()
    )
    for key, value in flatten(manifest.run).items():
        yield f"{key} = {value}"
    width = max(len(name) for name in sizes)
    yield f"{'leaf':<{width}}  {'shape':<20} {'dtype':<9} {'bytes':>12}  digest"
    for name, leaf in manifest.leaves.items():
        shape = str(tuple(leaf["shape"]))
        row = f"{name:<{width}}  {shape:<20} {leaf['dtype']:<9} {sizes[name]:>12,}"
        yield f"{row}  {leaf['digest']}"
    yield f"{'all':<{width}}  {'':<20} {'':<9} {sum(sizes.values()):>12,}"


def diff(path_a: pathlib.Path, path_b: pathlib.Path) -> Iterator[str]:
    """Yields the differences between two checkpoints, which are verified first."""
    a, b = verify(path_a), verify(path_b)
    for title, facts_a, facts_b in (
        ("", {"step": a.step, **flatten(a.run)}, {"step": b.step, **flatten(b.run)}),
        ("version of ", a.versions, b.versions),
    ):
        for key in sorted(facts_a.keys() | facts_b.keys()):
            if (old := facts_a.get(key)) != (new := facts_b.get(key)):
                yield f"{title}{key}: {old} -> {new}"
    same = 0
    for item in ITEMS:
        leaves_a, leaves_b = dict(read_leaves(path_a, item)), dict(read_leaves(path_b, item))
        for name in sorted(leaves_a.keys() | leaves_b.keys()):
            line = _difference(leaves_a.get(name), leaves_b.get(name))
            same += not line
            if line:
                yield f"{name}: {line}"
    yield f"{same} leaves are bitwise identical"


def _difference(a: np.ndarray | None, b: np.ndarray | None) -> str:
    if a is None or b is None:
        return f"only in the {'second' if a is None else 'first'}"
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{a.shape} {a.dtype} -> {b.shape} {b.dtype}"
    if a.tobytes() == b.tobytes():
        return ""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.linalg.norm(a)
    relative = f"{np.linalg.norm(b - a) / scale:.3g}" if scale else "inf"
    return f"largest difference {np.abs(b - a).max():.3g}, relative to the norm {relative}"


def _num_bytes(leaf: dict) -> int:
    return int(np.prod(leaf["shape"], dtype=np.int64)) * np.dtype(leaf["dtype"]).itemsize


def newest(directory: pathlib.Path) -> pathlib.Path:
    """Returns the newest checkpoint whose manifest and files are valid."""
    for step in reversed(steps_in(directory)):
        path = directory / str(step)
        try:
            manifests.check_files(path, manifests.read(path))
        except CorruptError:
            continue
        return path
    raise CheckpointError(f"{directory} holds no complete checkpoint.")


def export(path: pathlib.Path, target: pathlib.Path) -> Iterator[str]:
    """Writes the verified parameters of a checkpoint, or their average, to a new file.

    The format is safetensors: plain bytes after a JSON header, readable by PyTorch, NumPy, JAX and
    the Hugging Face hub, without pickle. An .npz would not support bfloat16.

    Args:
      path: the checkpoint's directory.
      target: an unused name that ends in .safetensors. Tensors are named "encoder/...", "head/...";
        the metadata contains the step, the versions and the run's description.

    Yields:
      A line on what has been written.
    """
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors, the format of the file.")
    if target.exists():
        raise CheckpointError(f"{target} exists; remove it or choose another name.")
    manifest = verify(path)
    tensors = {name.removeprefix("params/"): leaf for name, leaf in read_leaves(path, "params")}
    for name, leaf in read_leaves(path, "rest"):
        if name.startswith(f"rest/{AVERAGES}/"):
            tensors[name.removeprefix(f"rest/{AVERAGES}/")] = leaf
    facts = {"step": manifest.step, "versions": manifest.versions, "run": manifest.run}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    try:
        with atomically(target) as temporary:
            save_file(tensors, temporary, metadata)
            share(temporary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from None
    yield f"{target}: parameters of step {manifest.step:,}"
