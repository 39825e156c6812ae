"""Checkpoints of a run: parameters, the rest of its state, and a description, by step.

A checkpoint's step is the number of updates applied. It is written in the background into a
temporary directory that is renamed when complete, so a killed run leaves no half of one.
"""

import contextlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

META = "description"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or restored; the message says which and why."""


class Checkpoints:
    """The checkpoints in one directory, the newest `keep` of them.

    Each holds two trees, `params` and `rest` (optimizer state, step, ...), and a JSON description.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int):
        self.directory = pathlib.Path(directory).absolute()
        self._writing: int | None = None  # the step of the last `save`
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        try:
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, item_names=("params", "rest", META)
            )
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be kept in {self.directory}: {error}."
            ) from None

    def save(self, step: int, params: Any, rest: Any, description: dict) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Raises:
          CheckpointError: this one cannot be started, or the one before it could not be finished.
        """
        self.wait()  # an error of the checkpoint before must not be taken for one of this
        self._writing = step
        # Writing goes on in the background, and on CPU it would read the very buffers that the
        # next update overwrites: the copy is what makes donation safe.
        params, rest = jax.tree.map(jnp.copy, (params, rest))
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            rest=ocp.args.StandardSave(rest),
            **{META: ocp.args.JsonSave(description)},
        )
        self._reporting(lambda: self._manager.save(step, args=items, force=True))

    def wait(self) -> None:
        """Returns when the last checkpoint is complete; raises CheckpointError if it failed."""
        self._reporting(self._manager.wait_until_finished)

    def _reporting(self, action):
        try:
            action()
        except Exception as error:  # Orbax raises many kinds, all of them about this write
            text = str(error).strip() or type(error).__name__
            reason = next((line for line in reversed(text.splitlines()) if line.strip()), text)
            raise CheckpointError(
                f"the checkpoint at step {self._writing} could not be written to "
                f"{self.directory}: {reason} Complete ones: {self.steps() or 'none'}; "
                "make room or mend the path, then run "
                "again to resume."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return complete_steps(self.directory)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, None if there is none."""
        return max(self.steps(), default=None)

    def delete_after(self, step: int) -> None:
        """Removes the checkpoints after a step, when the run goes another way from there."""
        for later in (found for found in self.steps() if found > step):
            self._reporting(lambda later=later: self._manager.delete(later))

    def description(self, step: int) -> dict:
        """What `save` was given."""
        try:
            return json.loads((self.directory / str(step) / META / "metadata").read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"the description of {self.directory / str(step)} cannot be read: {error}."
            ) from None

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any]:
        """Reads a checkpoint onto any mesh.

        Args:
          step: one of `steps()`.
          params: tree of ShapeDtypeStructs with shardings: what is wanted, and where.
          rest: likewise.

        Raises:
          CheckpointError: a leaf is missing, superfluous or of another shape or dtype.
        """
        for item, wanted in (("params", params), ("rest", rest)):
            check_same_leaves(self.directory / str(step) / item, wanted)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params), rest=ocp.args.StandardRestore(rest)
        )
        try:
            restored = self._manager.restore(step, args=items)
        except Exception as error:  # as in `_reporting`
            raise CheckpointError(
                f"{self.directory / str(step)} cannot be restored: {error}; move it away to resume "
                f"from another of {self.steps()}."
            ) from error
        # Copies, as Orbax's arrays may share memory with buffers that are not JAX's to donate.
        return jax.tree.map(jnp.copy, (restored["params"], restored["rest"]))

    def close(self) -> None:
        """Waits for the last checkpoint and releases the threads."""
        self.wait()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.close()
        else:  # a failing write must not hide what went wrong first
            with contextlib.suppress(Exception):
                self._manager.close()


def restore_params(directory: str | pathlib.Path, params: Any) -> tuple[Any, int]:
    """Parameters of the newest checkpoint of another run, and its step.

    Args:
      directory: the run's `checkpoints` directory.
      params: tree of ShapeDtypeStructs with shardings; may be a subtree of what is stored.
    """
    directory = pathlib.Path(directory).absolute()
    steps = complete_steps(directory)
    if not steps:
        raise CheckpointError(f"{directory} holds no complete checkpoint to start from.")
    path = directory / str(steps[-1]) / "params"
    check_same_leaves(path, params)
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(jnp.copy, checkpointer.restore(path, params)), steps[-1]


def complete_steps(directory: pathlib.Path) -> list[int]:
    """Steps whose checkpoint was completed, ascending; the description is what must be there."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name.isdigit() and (path / META / "metadata").is_file():
            found.append(int(path.name))
    return sorted(found)


def check_same_leaves(path: pathlib.Path, wanted: Any) -> None:
    """Compares what is stored with what is wanted before Orbax, which would not name the leaf."""
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path)
    stored = _leaves(getattr(metadata, "item_metadata", metadata))
    expected = _leaves(wanted)
    for name, leaf in expected.items():
        if name not in stored:
            raise CheckpointError(
                f"{path} has no leaf {name} {leaf.shape}; it is of another model."
            )
        found = stored[name]
        if tuple(found.shape) != tuple(leaf.shape) or found.dtype != leaf.dtype:
            raise CheckpointError(
                f"leaf {name} of {path} is {tuple(found.shape)} {found.dtype}, wanted "
                f"{tuple(leaf.shape)} {leaf.dtype}; restore with the sizes it was written with."
            )
    if extra := sorted(set(stored) - set(expected)):
        raise CheckpointError(f"{path} has the leaf {extra[0]}, which this run has not.")


def _leaves(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
