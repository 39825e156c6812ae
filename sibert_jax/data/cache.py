"""Directories that are built once, verified whenever they are read, and never half there.

An entry is `cache_dir/<key>/` with its files and `manifest.json`, which names the size and SHA-256
of each. It is built under another name and renamed, so a build that dies leaves nothing that is
read later, and of two builds at once the first to finish wins.
"""

import dataclasses
import json
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable

from sibert_jax.data import fingerprint
from sibert_jax.errors import DataError
from sibert_jax.files import user_path

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
BUILDING_PREFIX = "building-"
ABANDONED_SECONDS = 86_400


@dataclasses.dataclass(frozen=True)
class Entry:
    """A verified directory and what its manifest says."""

    path: pathlib.Path
    manifest: dict


class Cache:
    """The entries under one directory.

    Args:
      directory: where they lie; made if it is not there.
      progress: called with a line of text when something has to be rebuilt.

    Raises:
      DataError: if the directory cannot be written.
    """

    def __init__(self, directory: str, progress: Callable[[str], None]):
        self.directory = user_path(directory)
        self._progress = progress
        try:
            (self.directory / "sources").mkdir(parents=True, exist_ok=True)
            self._new_directory().rmdir()
        except OSError as error:
            raise self._unwritable(error) from error
        self._sweep_abandoned()

    def load_or_build(self, key: str, build: Callable[[pathlib.Path], dict]) -> Entry:
        """Returns the entry of a key, building it where it is missing or corrupt.

        Args:
          key: the name; must change whenever the content would.
          build: writes the entry's files into the empty directory it is given and returns what
            else the manifest should hold.

        Raises:
          DataError: if the entry cannot be written, or whatever `build` raises.
        """
        path = self.directory / key
        entry, fault = _verify(path, key)
        if entry is not None:
            return entry
        if path.exists():
            self._progress(f"rebuilding the corrupt cache {path}: {fault}")
        try:
            building = self._new_directory()
            try:
                _write_manifest(building, key, build(building))
                return self._publish(building, path, key)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def source_sha256(self, path: pathlib.Path) -> str:
        """Returns a source file's SHA-256, read again only if its size or time changed."""
        path = path.resolve()
        note = self.directory / "sources" / f"{fingerprint.digest(str(path))}.json"
        try:
            stat = path.stat()
            identity = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            sha256 = _noted_sha256(note, identity)
            if sha256 is not None:
                return sha256
            sha256 = fingerprint.file_sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            draft = note.with_suffix(f".{secrets.token_hex(8)}")
            draft.write_text(json.dumps(identity | {"sha256": sha256}))
            draft.rename(note)
        except OSError as error:
            raise self._unwritable(error) from error
        return sha256

    def _publish(self, building: pathlib.Path, path: pathlib.Path, key: str) -> Entry:
        """Renames a finished build to its place, unless a good one got there first."""
        for _ in range(10):
            try:
                building.rename(path)
            except OSError:
                entry, _ = _verify(path, key)
                if entry is not None:
                    return entry
                self._move_aside(path)
            else:
                entry, fault = _verify(path, key)
                if entry is not None:
                    return entry
                raise DataError(f"the cache {path} is corrupt just after it was written: {fault}")
        raise DataError(f"cannot put a finished build at {path}; remove it and try again")

    def _new_directory(self) -> pathlib.Path:
        # Not tempfile.mkdtemp: what it makes cannot be read by others who share the cache.
        path = self.directory / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
        path.mkdir()
        return path

    def _move_aside(self, path: pathlib.Path) -> None:
        grave = self._new_directory()
        try:
            path.rename(grave / "corrupt")
        except FileNotFoundError:
            pass  # another process moved it
        finally:
            shutil.rmtree(grave, ignore_errors=True)

    def _sweep_abandoned(self) -> None:
        """Removes what builds that died have left behind."""
        for path in self.directory.glob(f"{BUILDING_PREFIX}*"):
            try:
                newest = max(file.stat().st_mtime for file in (path, *path.rglob("*")))
            except OSError:
                continue  # its builder is at work on it
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write data.cache_dir={str(self.directory)!r} ({error.strerror or error}); "
            "name a directory that can be written and has room"
        )


def _noted_sha256(note: pathlib.Path, identity: dict) -> str | None:
    try:
        noted = json.loads(note.read_text())
        return noted["sha256"] if {key: noted[key] for key in identity} == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_manifest(path: pathlib.Path, key: str, content: dict) -> None:
    files = {
        file.name: {"size": file.stat().st_size, "sha256": fingerprint.file_sha256(file)}
        for file in sorted(path.iterdir())
    }
    manifest = {"format": FORMAT_VERSION, "key": key, "files": files} | content
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _verify(path: pathlib.Path, key: str) -> tuple[Entry | None, str]:
    """Returns the entry, or None and what is wrong with it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if (manifest["format"], manifest["key"]) != (FORMAT_VERSION, key):
            return None, f"{MANIFEST} is of another entry"
        for name, file in manifest["files"].items():
            if (path / name).stat().st_size != file["size"]:
                return None, f"{name} has another size"
            if fingerprint.file_sha256(path / name) != file["sha256"]:
                return None, f"{name} has another hash"
    except FileNotFoundError as error:
        return None, f"{pathlib.Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, f"{MANIFEST} cannot be read"
    return Entry(path, manifest), ""
