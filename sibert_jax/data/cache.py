"""A cache of directories that are built once, atomically, and checked on every read.

An entry is `cache_dir/<key>/` with its files and `manifest.json`, which lists the size,
modification time and SHA-256 of each. It is built under a temporary name and renamed, so an
interrupted build leaves nothing that is read later, and of two concurrent builds the first to
finish wins.

Files are trusted by size and modification time, as make and rsync do; contents are hashed only if
the time differs. `touch` the files of an entry to have their contents checked.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable

from sibert_jax.errors import DataError
from sibert_jax.files import user_path

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
BUILDING_PREFIX = "building-"
ABANDONED_SECONDS = 86_400


def digest(*parts) -> str:
    """Returns 32 hexadecimal digits that depend only on the parts (JSON values)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A directory of the cache and its manifest.

    `manifest["files"]` has the size and SHA-256 of each file: a function of content alone.
    """

    path: pathlib.Path
    manifest: dict


class Cache:
    """The entries under one directory.

    Args:
      directory: created if it does not exist.
      progress: called with a message when something has to be rebuilt.

    Raises:
      DataError: if the directory cannot be written.
    """

    def __init__(self, directory: str, progress: Callable[[str], None]):
        self.directory = user_path(directory)
        self._progress = progress
        with self._writing():
            (self.directory / "sources").mkdir(parents=True, exist_ok=True)
            self._new_directory().rmdir()
        self._sweep_abandoned()

    def load_or_build(self, key: str, build: Callable[[pathlib.Path], dict]) -> Entry:
        """Returns the entry of a key, building it if it is missing or corrupt.

        Args:
          key: the name; must change whenever the content changes.
          build: writes the entry's files into the given empty directory and returns further
            contents for the manifest.

        Raises:
          DataError: if the entry cannot be written; `build` may raise others.
        """
        path = self.directory / key
        entry, fault = _verify(path, key)
        if entry is not None:
            return entry
        if path.exists():
            self._progress(f"rebuilding the corrupt cache {path}: {fault}")
        with self._writing():
            building = self._new_directory()
            try:
                _write_manifest(building, key, build(building))
                return self._publish(building, path, key)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def source_sha256(self, path: pathlib.Path) -> str:
        """Returns a source file's SHA-256, read again only if its size or time changed."""
        path = path.resolve()
        note = self.directory / "sources" / f"{digest(str(path))}.json"
        try:
            stat = path.stat()
            identity = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            sha256 = _noted_sha256(note, identity)
            if sha256 is not None:
                return sha256
            sha256 = file_sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        with self._writing():
            # No process id in the name: processes on other machines may share the directory.
            temporary = note.with_suffix(f".{secrets.token_hex(8)}")
            temporary.write_text(json.dumps(identity | {"sha256": sha256}))
            temporary.replace(note)
        return sha256

    def _publish(self, building: pathlib.Path, path: pathlib.Path, key: str) -> Entry:
        """Renames a finished build to its final name, unless a valid one is already there."""
        for _ in range(10):
            try:
                building.rename(path)
            except OSError:
                entry, _ = _verify(path, key)
                if entry is not None:
                    return entry
                self._remove(path)
            else:
                entry, fault = _verify(path, key)
                if entry is not None:
                    return entry
                raise DataError(f"the cache {path} is corrupt just after it was written: {fault}")
        raise DataError(f"cannot put a finished build at {path}; remove it and try again")

    def _new_directory(self) -> pathlib.Path:
        # Not tempfile.mkdtemp, whose directories other users of the cache could not read.
        path = self.directory / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
        path.mkdir()
        return path

    def _remove(self, path: pathlib.Path) -> None:
        """Removes a corrupt entry, renaming it first so that no reader sees half of it."""
        aside = self._new_directory()
        with contextlib.suppress(FileNotFoundError):  # another process moved it
            path.rename(aside / "corrupt")
        shutil.rmtree(aside, ignore_errors=True)

    def _sweep_abandoned(self) -> None:
        """Removes what interrupted builds have left behind."""
        for path in self.directory.glob(f"{BUILDING_PREFIX}*"):
            try:
                newest = max(file.stat().st_mtime for file in (path, *path.rglob("*")))
            except OSError:
                continue  # its builder is still writing it
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write data.cache_dir={str(self.directory)!r} "
                f"({error.strerror or error}); name a directory that can be written and has room"
            ) from error


def _noted_sha256(note: pathlib.Path, identity: dict) -> str | None:
    try:
        noted = json.loads(note.read_text())
        return noted["sha256"] if {key: noted[key] for key in identity} == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_manifest(path: pathlib.Path, key: str, content: dict) -> None:
    files = sorted(path.iterdir())
    sizes_and_hashes = {
        file.name: {"size": file.stat().st_size, "sha256": file_sha256(file)} for file in files
    }
    times = {file.name: file.stat().st_mtime_ns for file in files}
    manifest = {"format": FORMAT_VERSION, "key": key, "files": sizes_and_hashes, "times": times}
    (path / MANIFEST).write_text(json.dumps(manifest | content, indent=1))


def _verify(path: pathlib.Path, key: str) -> tuple[Entry | None, str]:
    """Returns the entry, or None, and what is wrong with it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if (manifest["format"], manifest["key"]) != (FORMAT_VERSION, key):
            return None, f"{MANIFEST} is of another entry"
        for name, file in manifest["files"].items():
            stat = (path / name).stat()
            if stat.st_size != file["size"]:
                return None, f"{name} has another size"
            if stat.st_mtime_ns != manifest["times"][name]:
                if file_sha256(path / name) != file["sha256"]:
                    return None, f"{name} has another hash"
                # Copied or touched: restore its time, so that it is hashed only once.
                with contextlib.suppress(OSError):
                    os.utime(path / name, ns=(stat.st_atime_ns, manifest["times"][name]))
    except FileNotFoundError as error:
        return None, f"{pathlib.Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, f"{MANIFEST} cannot be read"
    return Entry(path, manifest), ""
