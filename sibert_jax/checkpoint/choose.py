"""Chooses the checkpoint to read: the newest that verifies, the best, or one by step."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterable

import jax

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.collectives import from_all, from_first, is_first
from sibert_jax.checkpoint.manifest import Manifest
from sibert_jax.checkpoint.read import manifest_of, problem_of
from sibert_jax.errors import CheckpointError


def tell(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Source:
    """A verified checkpoint of another run."""

    path: pathlib.Path
    manifest: Manifest


def newest_verified(directory: pathlib.Path, say: Callable[[str], None] = tell) -> Source:
    """Returns the newest checkpoint that verifies; newer ones are reported in one line each.

    Args:
      directory: a run's workdir or its `checkpoints`.
      say: called with these lines.

    Raises:
      CheckpointError: no checkpoint verifies.
    """
    directory = manifests.checkpoints_in(directory)
    newest = first_verified(directory, reversed(manifests.steps_in(directory)), {}, say)
    if newest is None:
        raise CheckpointError(f"{directory} holds no complete checkpoint to start from.")
    return Source(directory / str(newest), manifest_of(directory / str(newest)))


def chosen(
    directory: pathlib.Path, step: int | str | None, say: Callable[[str], None] = tell
) -> Source:
    """Returns a verified checkpoint of a run.

    Args:
      directory: a run's workdir or its `checkpoints`.
      step: None for the newest that verifies; "best" for that of the best evaluation so far, by the
        task's main metric; otherwise the number of updates, as an int or a string.
      say: called with a message on each newer one that does not verify.

    Raises:
      CheckpointError: there is no such checkpoint, or it does not verify.
    """
    if step is None:
        return newest_verified(directory, say)
    directory = manifests.checkpoints_in(directory)
    steps = manifests.steps_in(directory)
    if step == "best":
        step = manifests.best_step(newest_verified(directory, say).manifest)
        if step is None:
            raise CheckpointError(
                f"{directory}: there is no best checkpoint before the first evaluation; give a "
                "step instead."
            )
        if step not in steps:
            raise CheckpointError(
                f"the best evaluation in {directory} was at step {step:,}, whose checkpoint was "
                "not kept; to keep it, train with --config.checkpoint.keep_best=True."
            )
    if not str(step).isdecimal() or int(step) not in steps:
        raise CheckpointError(
            f'{directory} has no checkpoint of step {step}; give "best", or one of {steps}.'
        )
    path = directory / str(int(step))
    if problem := problem_of(path):
        raise CheckpointError(f"checkpoint {path} cannot be used: {problem}")
    return Source(path, manifest_of(path))


def first_verified(
    directory: pathlib.Path,
    steps: Iterable[int],
    problems: dict[int, str],
    say: Callable[[str], None],
) -> int | None:
    """Returns the first of some steps that verifies; all processes call this, each reads a share.

    Args:
      directory: the directory of checkpoints.
      steps: steps in order of preference; those of process 0 are used.
      problems: known problems by step, "" if it verifies; newly examined steps are added.
      say: called in process 0 with a message on each checkpoint that does not verify.
    """
    steps, share = iter(steps), (jax.process_index(), jax.process_count())
    while (step := from_first(next(steps, None))) is not None:
        if step not in problems:
            path = directory / str(step)
            problems[step] = next(filter(None, from_all(problem_of(path, share))), "")
            if problems[step] and is_first():
                say(f"checkpoint {path} is skipped: {problems[step]}")
        if not problems[step]:
            return step
    return None
