"""Helpers for paths and files."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator


def user_path(text: str | os.PathLike) -> pathlib.Path:
    """Returns the path that a user wrote: a leading `~` is the home directory.

    Shells do not expand the `~` of `--workdir=~/x`.
    """
    return pathlib.Path(os.path.expanduser(text))


@contextlib.contextmanager
def atomically(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Writes a file atomically: yields a path to write to, which replaces `path` at the end.

    If the body raises, `path` is unchanged, and what was written is removed.

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
    """Gives a file default permissions, as safetensors makes files readable only by their owner."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes an indented JSON file atomically."""
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
