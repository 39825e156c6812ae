"""The manifest of a checkpoint, written last: leaves with digests, files, and the run."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from sibert_jax import __version__
from sibert_jax.errors import CheckpointError, CorruptError
from sibert_jax.files import user_path

ITEMS = ("params", "rest")  # the trees of a checkpoint
# In `rest` of a run that is evaluated at an average of its parameters over steps: that average,
# which replaces `params` for other runs, predictions and exports.
AVERAGES = "averages"
# In the description of a run: {"step": step of its best evaluation so far, or None, ...}.
BEST = "best"
NAME = "manifest.json"
FORMAT = 1
# Larger files contain arrays, which are covered by the leaves' digests.
HASHED_BYTES = 1 << 20
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`."""

    format: int
    step: int  # updates applied
    written: str  # date and time, UTC, ISO 8601
    versions: dict[str, str]  # versions of the packages that wrote it
    processes: int
    run: dict  # the run's description: mesh, configuration, fingerprint of the data, ...
    leaves: dict[str, dict]  # by name: shape, dtype, digest
    files: dict[str, dict]  # by path within the checkpoint: size, sha256 ("" for a large one)

    def write(self, path: pathlib.Path) -> None:
        """Writes the manifest into a checkpoint's directory, with its own digest."""
        body = dataclasses.asdict(self)
        text = json.dumps({"sha256": _sha256(body), "manifest": body}, indent=1)
        (path / NAME).write_text(text + "\n", encoding="utf-8")


def checkpoints_in(directory: str | pathlib.Path) -> pathlib.Path:
    """Returns the `checkpoints` of a workdir; a directory of checkpoints is returned unchanged."""
    directory = user_path(directory).absolute()
    below = directory / "checkpoints"
    return below if below.is_dir() else directory


def steps_in(directory: pathlib.Path) -> list[int]:
    """Returns the steps that have a directory, ascending, complete or not."""
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in paths if path.name.isdecimal() and path.is_dir())


def make(
    path: pathlib.Path, step: int, run: dict, leaves: dict[str, Any], digests: dict[str, str]
) -> Manifest:
    """Describes a checkpoint whose items have been written."""
    versions = {"sibert_jax": __version__}
    for name in PACKAGES:
        versions[name] = _version(name)
    described = {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "digest": digests[name]}
        for name, leaf in leaves.items()
    }
    return Manifest(
        format=FORMAT,
        step=step,
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions,
        processes=jax.process_count(),
        run=run,
        leaves=described,
        files={name: _file(path / name) for name in _file_names(path)},
    )


def read(path: pathlib.Path) -> Manifest:
    """Reads a checkpoint's manifest.

    Raises:
      CorruptError: there is none, or it differs from what was written.
      CheckpointError: a later version of this package wrote it.
    """
    try:
        document = json.loads((path / NAME).read_bytes())
        body, stated = document["manifest"], document["sha256"]
        if stated != _sha256(body):
            raise CorruptError(f"{NAME} has changed since it was written")
        if body["format"] != FORMAT:
            raise CheckpointError(
                f"{path / NAME} has format {body['format']}, this version of sibert_jax "
                f"({__version__}) reads {FORMAT}; install the one that wrote it "
                f"({body['versions']['sibert_jax']})."
            )
        return Manifest(**body)
    except FileNotFoundError:
        raise CorruptError(f"it has no {NAME}, so it was not completed") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{NAME} cannot be read ({type(error).__name__}: {error})") from None


def stored_params(manifest: Manifest) -> dict[str, dict]:
    """Returns shape, dtype and digest of each parameter, by name "encoder/...", "head/..."."""
    return {
        name.removeprefix("params/"): leaf
        for name, leaf in manifest.leaves.items()
        if name.startswith("params/")
    }


def best_step(manifest: Manifest) -> int | None:
    """Returns the step of the run's best evaluation at that point, or None."""
    return manifest.run[BEST]["step"] if BEST in manifest.run else None


def check_files(path: pathlib.Path, manifest: Manifest) -> None:
    """Checks the files against the manifest; raises CorruptError."""
    for name, stated in manifest.files.items():
        try:
            found = _file(path / name)
        except OSError as error:
            raise CorruptError(f"file {name} cannot be read ({error.strerror})") from None
        if found["size"] != stated["size"]:
            raise CorruptError(f"file {name} has {found['size']} bytes instead of {stated['size']}")
        if found["sha256"] != stated["sha256"]:
            raise CorruptError(f"file {name} has changed since it was written")


def check_same_leaves(where: str, stored: dict[str, dict], wanted: dict[str, Any], why: str = ""):
    """Raises CheckpointError for a missing or extra leaf, or a wrong shape or dtype.

    Args:
      where: what the leaves are stored in, for the message.
      stored: "shape" and "dtype" by leaf name, from the manifest.
      wanted: arrays or ShapeDtypeStructs by leaf name.
      why: a possible explanation, for the message.
    """
    why = why or "restore it with the settings it was written with"
    for name, leaf in wanted.items():
        shape = tuple(leaf.shape)
        if name not in stored:
            raise CheckpointError(
                f"{where} has no leaf {name} {shape}, so it belongs to another model: {why}."
            )
        found, dtype = tuple(stored[name]["shape"]), stored[name]["dtype"]
        if found != shape or dtype != str(leaf.dtype):
            raise CheckpointError(
                f"leaf {name} of {where} is {found} {dtype}, expected {shape} {leaf.dtype}: {why}."
            )
    if extra := sorted(stored.keys() - wanted.keys()):
        raise CheckpointError(
            f"{where} has the leaf {extra[0]} {tuple(stored[extra[0]]['shape'])}, which this run "
            f"does not have, so it belongs to another model: {why}."
        )


def size_of(path: pathlib.Path) -> int:
    """Returns the bytes of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _file_names(path: pathlib.Path) -> list[str]:
    """Returns the files of the items; nothing depends on others, which Orbax writes last."""
    files = (file for item in ITEMS for file in (path / item).rglob("*") if file.is_file())
    return sorted(file.relative_to(path).as_posix() for file in files)


def _file(path: pathlib.Path) -> dict:
    size = path.stat().st_size
    if size > HASHED_BYTES:
        return {"size": size, "sha256": ""}
    return {"size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sha256(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# Digests of arrays, independent of how they are sharded.
PERIOD = 1 << 16
MASK = (1 << 64) - 1


def _odd(i: np.ndarray) -> np.ndarray:
    """Returns an odd number per index: SplitMix64 (Steele, Lea and Flood 2014), lowest bit set."""
    z = (i.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


# m(i) = LOW[i mod PERIOD] · _odd(i div PERIOD): a product of odd numbers is odd, and a table is
# much cheaper than mixing every index.
LOW = _odd(np.arange(PERIOD))


def digest(array: np.ndarray) -> str:
    """Returns the digest of a whole array on the host: 16 hexadecimal digits.

    digest(x) = Σ_i word_i · m(i) mod 2^64, over the elements' bits as integers, i the row-major
    index and m(i) an odd pseudo-random number: multilinear hashing (Carter and Wegman 1979).
    Elements of 8 bytes are two words. An odd number has an inverse modulo 2^64, so one changed word
    always changes the digest; several leave it unchanged with probability at most 2^-32 (2^-63 for
    words that differ in their last bits). A sum of integers does not depend on its order, so
    devices and processes each sum their own parts.
    """
    return as_text(partial_digest(array, (slice(None),) * array.ndim, array.shape))


def as_text(total: int) -> str:
    """Formats a digest as 16 hexadecimal digits."""
    return f"{total & MASK:016x}"


def partial_digest(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """Returns the contribution of a part of an array to its digest.

    Args:
      part: the elements; 1, 2, 4 or 8 bytes each.
      index: their position in the whole array: a slice with step 1 per axis.
      shape: the shape of the whole array.
    """
    size = part.dtype.itemsize
    if size == 8:
        index, shape, size = (*index, slice(None)), (*shape, 2), 4
    words = np.ascontiguousarray(part).reshape(-1).view(f"u{size}")
    total = position = 0
    for start, length in _runs(index, shape):
        while length:
            block, offset = divmod(start, PERIOD)
            count = min(length, PERIOD - offset)
            run = words[position : position + count].astype(np.uint64)
            high = int(_odd(np.array([block]))[0])
            total += high * int(np.dot(run, LOW[offset : offset + count]))
            start, length, position = start + count, length - count, position + count
    return total & MASK


def _runs(index: tuple[slice, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yields (first row-major index, length) of each range contiguous in the whole array."""
    ranges = [range(*part.indices(size)) for part, size in zip(index, shape)]
    axis = len(shape)  # the trailing axes from here on are complete
    while axis and len(ranges[axis - 1]) == shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)  # one further axis, possibly partial, stays contiguous
    inner = int(np.prod(shape[axis + 1 :], dtype=np.int64)) if shape else 1
    length = len(ranges[axis]) * inner if shape else 1
    if not length:
        return
    first = ranges[axis].start * inner if shape else 0
    strides = [int(np.prod(shape[k + 1 :], dtype=np.int64)) for k in range(axis)]
    for place in np.ndindex(*(len(part) for part in ranges[:axis])):
        outer = sum((r.start + k) * stride for r, k, stride in zip(ranges, place, strides))
        yield outer + first, length


def own_parts(array: jax.Array) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """Returns this process's parts of an array; over all processes each element occurs once."""
    shards = array.addressable_shards
    return [(np.asarray(s.data), s.index) for s in shards if s.replica_id == 0]
