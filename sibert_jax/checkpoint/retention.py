"""The names in a directory of checkpoints, and the removal of old ones.

`12` is the checkpoint after 12 updates; `12.orbax-checkpoint-tmp` is being written, or was when the
run was killed; `12.retired` is being removed; `12.corrupt` did not verify when the run reached step
12 again.

Retention is not left to the CheckpointManager, which chooses what to delete when a save starts, so
that an old checkpoint would be deleted before the new one has been read back. It also deletes in
place, so that a kill would leave a partial checkpoint.
"""

import contextlib
import pathlib
import re
import shutil
from collections.abc import Callable

import orbax.checkpoint as ocp

TEMPORARY = ocp.path.step.TMP_DIR_SUFFIX
SCRATCH = re.compile(rf"\d+({re.escape(TEMPORARY)}.*|\.retired|\.digests\..*)")


def set_aside(directory: pathlib.Path, step: int) -> None:
    """Renames the checkpoint of a step, if there is one, to an unused name."""
    path, number = directory / str(step), 1
    aside = directory / f"{step}.corrupt"
    while aside.exists():
        number += 1
        aside = directory / f"{step}.corrupt{number}"
    if path.exists():
        path.rename(aside)


def retire(directory: pathlib.Path, steps: list[int], say: Callable[[str], None]) -> None:
    """Removes checkpoints and leftovers of killed processes; errors are only reported."""
    try:
        for step in steps:  # rename first, so that a kill leaves no partial checkpoint
            (directory / str(step)).rename(directory / f"{step}.retired")
        clear(directory, "*")
    except OSError as error:
        say(f"old checkpoints in {directory} cannot be removed: {error}")


def clear(directory: pathlib.Path, pattern: str) -> None:
    """Removes temporary files matching a pattern: not checkpoints, nor those set aside."""
    for path in directory.glob(pattern):
        if SCRATCH.fullmatch(path.name):
            remove(path)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a directory, if it exists."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):  # Orbax may be deleting its own files
            shutil.rmtree(path) if path.is_dir() else path.unlink()
