"""Checkpoints of a run: parameters, the rest of its state, and a manifest that proves them.

A checkpoint's step is the number of updates applied. It is written in the background, described by
a manifest, read back and compared, and only then gets its name, so a run that is killed at any
moment leaves no half of one under the name of a whole one.
"""

import concurrent.futures
import contextlib
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import directory as names
from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint import processes
from sibert_jax.checkpoint.digest import as_text, own_parts, partial_digest
from sibert_jax.checkpoint.manifest import Manifest
from sibert_jax.checkpoint.restore import manifest_of, restore_items
from sibert_jax.checkpoint.verify import ITEMS, named, problem_of, verify
from sibert_jax.errors import CheckpointError
from sibert_jax.files import user_path


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints in one directory, the newest `keep` of those that verify.

    Each holds two trees, `params` and `rest` (optimizer state, step, ...), and a description of the
    run. Every method but `steps` and `description` is called by all processes of the run.

    Args:
      directory: made if need be; shared by all processes.
      keep: complete checkpoints to keep, at least 1; a corrupt one does not count and stays.
      say: called with a line about each checkpoint that is skipped.
    """

    def __init__(
        self, directory: str | pathlib.Path, keep: int, say: Callable[[str], None] = _tell
    ):
        self.directory = user_path(directory).absolute()
        self.seconds_blocked = 0.0  # how long `save` and `wait` held up their caller, in all
        self._keep, self._say = keep, say
        self._problems: dict[int, str] = {}  # of the checkpoints examined; "": it verifies
        self._writing: int | None = None  # the step of the last `save`
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be kept in {self.directory}: {error}."
            ) from None
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(*ITEMS))
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._finishing: concurrent.futures.Future | None = None

    def save(self, step: int, params: Any, rest: Any, description: dict) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: updates applied.
          params: tree of jax.Arrays.
          rest: likewise.
          description: anything that JSON can hold; the manifest's `run`.

        Raises:
          CheckpointError: this one cannot be started, or the one before it could not be finished.
        """
        self.wait()  # an error of the checkpoint before must not be taken for one of this
        since, self._writing = time.perf_counter(), step
        # Writing goes on in the background, and on CPU it would read the very buffers that the
        # next update overwrites: the copy is what makes donation safe.
        trees = jax.tree.map(jnp.copy, {"params": params, "rest": rest})
        leaves = named(trees)
        parts = {name: own_parts(leaf) for name, leaf in leaves.items()}
        shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()
        }
        items = {item: ocp.args.StandardSave(tree) for item, tree in trees.items()}
        with self._reporting():
            if processes.is_first():
                names.make_room(self.directory, step)
            self._problems.pop(step, None)
            self._orbax.save(self.directory / f"{step}.partial", args=ocp.args.Composite(**items))
            self._finishing = self._thread.submit(self._finish, step, shapes, parts, description)
        self.seconds_blocked += time.perf_counter() - since

    def _finish(self, step: int, shapes: dict, parts: dict, description: dict) -> None:
        """In the background, after Orbax: manifest, reading back, the final name, retention."""
        self._orbax.wait_until_finished()
        sums = {
            name: sum(partial_digest(part, index, shapes[name].shape) for part, index in own)
            for name, own in parts.items()
        }
        if not processes.is_first():
            processes.leave_sums(self.directory / f"{step}.digests", sums)
            return
        sums = processes.gather_sums(self.directory / f"{step}.digests", sums)
        digests = {name: as_text(total) for name, total in sums.items()}
        path = self.directory / f"{step}.partial"
        manifests.make(path, step, description, shapes, digests).write(path)
        verify(path)
        path.rename(self.directory / str(step))
        self._problems[step] = ""
        self._retire()

    def _retire(self) -> None:
        verified = [step for step in names.steps_in(self.directory) if not self._problem(step)]
        names.retire(self.directory, verified[: -self._keep], self._say)

    def wait(self) -> None:
        """Returns when the last checkpoint is complete; raises CheckpointError if it failed."""
        if self._finishing is None:
            return
        since = time.perf_counter()
        finishing, self._finishing = self._finishing, None
        try:
            with self._reporting():
                finishing.result()
        except CheckpointError:
            processes.all_succeeded(False)
            raise
        else:
            if not processes.all_succeeded(True):
                raise CheckpointError(
                    f"the checkpoint at step {self._writing} could not be written by another "
                    "process of this run; see its message."
                )
        finally:
            self.seconds_blocked += time.perf_counter() - since

    @contextlib.contextmanager
    def _reporting(self):
        try:
            yield
        except Exception as error:  # Orbax raises many kinds, all of them about this write
            text = str(error).strip() or type(error).__name__
            reason = next((line for line in reversed(text.splitlines()) if line.strip()), text)
            reason = reason.split(" [tensorstore_spec=")[0].rstrip(".")
            raise CheckpointError(
                f"the checkpoint at step {self._writing} could not be written to "
                f"{self.directory}: {reason}. Complete ones: {self.steps() or 'none'}; make room "
                "or mend the path, then run again to resume."
            ) from error

    def steps(self) -> list[int]:
        """Steps, ascending, of the checkpoints that have their manifest and their files.

        The numbers in them are only compared when one is needed: see `latest_step`.
        """
        return [step for step in names.steps_in(self.directory) if self._is_plausible(step)]

    def _is_plausible(self, step: int) -> bool:
        if step in self._problems:
            return not self._problems[step]
        try:
            path = self.directory / str(step)
            manifests.check_files(path, manifests.read(path))
        except CheckpointError:
            return False
        return True

    def latest_step(self, multiple_of: int = 1, *, again: bool = False) -> int | None:
        """The newest checkpoint that verifies, None if none does; the first process decides.

        Each newer one that does not is named in one line and left as it is.

        Args:
          multiple_of: steps that this divides come first, however old.
          again: also reads what has been examined before, as disks may lose what they had.
        """
        newest = None
        if processes.is_first():
            if again:
                self._problems.clear()
            steps = names.steps_in(self.directory)
            steps.sort(key=lambda step: (step % multiple_of == 0, step), reverse=True)
            newest = next((step for step in steps if not self._problem(step)), None)
        return processes.from_first(newest)

    def _problem(self, step: int) -> str:
        """What is wrong with a checkpoint; "" if it verifies. Examined once, and told once."""
        if step not in self._problems:
            path = self.directory / str(step)
            self._problems[step] = problem = problem_of(path)
            if problem:
                self._say(f"checkpoint {path} is skipped: {problem}")
        return self._problems[step]

    def manifest(self, step: int) -> Manifest:
        """What a checkpoint says of itself."""
        return manifest_of(self.directory / str(step))

    def description(self, step: int) -> dict:
        """What `save` was given."""
        return self.manifest(step).run

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any]:
        """Reads a checkpoint onto any mesh and any number of processes.

        Args:
          step: one of `steps()`.
          params: tree of ShapeDtypeStructs with shardings: what is wanted, and where.
          rest: likewise.

        Raises:
          CheckpointError: a leaf is missing, superfluous or of another shape or dtype, or its
            numbers are not those that were saved.
        """
        wanted = {"params": params, "rest": rest}
        restored = restore_items(self.directory / str(step), wanted)
        return restored["params"], restored["rest"]

    def delete_after(self, step: int) -> None:
        """Removes the checkpoints after a step, when the run goes another way from there."""
        self.wait()
        later = [found for found in self.steps() if found > step]
        if processes.is_first():
            names.retire(self.directory, later, self._say)
        processes.all_succeeded(True)

    def close(self) -> None:
        """Waits for the last checkpoint and releases the threads."""
        self.wait()
        self._release()

    def _release(self) -> None:
        self._thread.shutdown()
        self._orbax.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.close()
        else:  # a failing write must not hide what went wrong first
            with contextlib.suppress(Exception):
                self._release()
