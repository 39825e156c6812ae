"""What is in the directory of checkpoints, and what leaves it.

`12` is the checkpoint after 12 updates; `12.orbax-checkpoint-tmp` is being written, or was when
killed; `12.retired` is being removed; `12.corrupt` did not verify when the run came to step 12
again.

Retention is ours, not an option of the CheckpointManager: that chooses what to delete when a save
starts, `max_to_keep` and its preservation policies alike, so that an old checkpoint would go before
the new one has been read back. It also deletes in place, so that a kill would leave a part of one.
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
    """Renames the checkpoint of a step, if there is one, to a name that is free."""
    path, number = directory / str(step), 1
    aside = directory / f"{step}.corrupt"
    while aside.exists():
        number += 1
        aside = directory / f"{step}.corrupt{number}"
    if path.exists():
        path.rename(aside)


def retire(directory: pathlib.Path, steps: list[int], say: Callable[[str], None]) -> None:
    """Removes checkpoints, and what killed processes left; errors are only reported."""
    try:
        for step in steps:  # first the name, so that a kill leaves no part of a checkpoint
            (directory / str(step)).rename(directory / f"{step}.retired")
        clear(directory, "*")
    except OSError as error:
        say(f"old checkpoints in {directory} cannot be removed: {error}")


def clear(directory: pathlib.Path, pattern: str) -> None:
    """Removes what is no checkpoint and nothing that was set aside, of the names of a pattern."""
    for path in directory.glob(pattern):
        if SCRATCH.fullmatch(path.name):
            remove(path)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a directory, if it is there."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):  # Orbax may be deleting its own at this moment
            shutil.rmtree(path) if path.is_dir() else path.unlink()
