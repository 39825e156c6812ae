"""The names in a directory of checkpoints, and what may be removed from it.

`12` is a checkpoint: it gets that name when it is complete and has been read back. `12.partial` and
what Orbax adds to that name is one being written, or one whose writing was killed; `12.retired` is
one being removed; `12.corrupt` was moved aside, because the run came to step 12 again.
"""

import pathlib
import re
import shutil
from collections.abc import Callable

SCRATCH = re.compile(r"\d+\.(partial.*|retired|digests\..*)")


def steps_in(directory: pathlib.Path) -> list[int]:
    """Steps that have a directory, ascending, whatever state it is in."""
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in paths if path.name.isdecimal() and path.is_dir())


def make_room(directory: pathlib.Path, step: int) -> None:
    """Moves what stands in the way of a new checkpoint aside; nothing complete is lost."""
    for path in directory.glob(f"{step}.*"):
        if SCRATCH.fullmatch(path.name):
            remove(path)
    path, aside = directory / str(step), directory / f"{step}.corrupt"
    number = 1
    while aside.exists():
        number += 1
        aside = directory / f"{step}.corrupt{number}"
    if path.exists():
        path.rename(aside)


def retire(directory: pathlib.Path, steps: list[int], say: Callable[[str], None]) -> None:
    """Removes checkpoints, and what killed processes left unfinished; errors are only told."""
    try:
        for step in steps:  # first the name, so that a kill leaves no half of a checkpoint
            (directory / str(step)).rename(directory / f"{step}.retired")
        for path in directory.iterdir():
            if SCRATCH.fullmatch(path.name):
                remove(path)
    except OSError as error:
        say(f"old checkpoints in {directory} cannot be removed: {error}")


def remove(path: pathlib.Path) -> None:
    """Removes a file or a directory with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
