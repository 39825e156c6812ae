"""Paths and files."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator


def user_path(text: str | os.PathLike) -> pathlib.Path:
    """A path as a user writes it: a leading `~` is the home directory.

    Shells leave the `~` of `--workdir=~/x` as it is.
    """
    return pathlib.Path(os.path.expanduser(text))


@contextlib.contextmanager
def atomically(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Writes a file atomically: yields a path to write to, which replaces `path` at the end.

    If the body raises, `path` stays as it was, and what was written is removed.

    Example:
      >>> with atomically(pathlib.Path("a.txt")) as temporary:
      ...     temporary.write_text("text")
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def share(path: pathlib.Path) -> None:
    """Gives a file the permissions of any new one; safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes a file of JSON atomically, for people to read."""
    with atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def flatten(nested: dict, prefix: str = "") -> dict[str, object]:
    """Flattens a nested dict; tuples become lists, as in JSON.

    Example:
      >>> flatten({"a": {"b": 1}, "c": (2,)})
      {'a.b': 1, 'c': [2]}
    """
    flat = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
