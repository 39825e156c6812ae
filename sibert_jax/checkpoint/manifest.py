"""What a checkpoint says of itself, written last: its leaves with their digests, files and run."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import pathlib

import jax

from sibert_jax import __version__
from sibert_jax.errors import CheckpointError, CorruptError

NAME = "manifest.json"
FORMAT = 1
# Larger files hold arrays, which the leaves' digests watch over.
HASHED_BYTES = 1 << 20
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`."""

    format: int
    step: int  # updates applied
    written: str  # date and time, UTC, ISO 8601
    versions: dict[str, str]  # of the packages that wrote it
    processes: int
    run: dict  # what the run says of itself: mesh, configuration, fingerprint of the data, ...
    leaves: dict[str, dict]  # by name: shape, dtype, digest
    files: dict[str, dict]  # by path within the checkpoint: size, sha256 ("" for a large one)

    def write(self, path: pathlib.Path) -> None:
        """Writes the manifest into a checkpoint's directory, with a digest of its own."""
        body = dataclasses.asdict(self)
        text = json.dumps({"sha256": _sha256(body), "manifest": body}, indent=1)
        (path / NAME).write_text(text + "\n", encoding="utf-8")


def make(
    path: pathlib.Path, step: int, run: dict, leaves: dict[str, jax.Array], digests: dict[str, str]
) -> Manifest:
    """Describes a checkpoint all of whose files are there."""
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
      CorruptError: there is none, or it is not what was written.
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


def check_files(path: pathlib.Path, manifest: Manifest) -> None:
    """Compares the files with what the manifest says of them; raises CorruptError."""
    for name, stated in manifest.files.items():
        try:
            found = _file(path / name)
        except OSError as error:
            raise CorruptError(f"file {name} cannot be read ({error.strerror})") from None
        if found["size"] != stated["size"]:
            raise CorruptError(f"file {name} has {found['size']} bytes instead of {stated['size']}")
        if found["sha256"] != stated["sha256"]:
            raise CorruptError(f"file {name} has changed since it was written")


def size_of(path: pathlib.Path) -> int:
    """Bytes of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _file_names(path: pathlib.Path) -> list[str]:
    files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return sorted(name for name in files if name != NAME)


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
