"""The checkpoints of a run: parameters, the rest of its state, and a manifest to verify them.

Orbax's CheckpointManager writes them in the background and commits each by a rename; the manifest
is in place by then. For the names in the directory see `retention`.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint import read, retention
from sibert_jax.checkpoint.choose import first_verified, tell
from sibert_jax.checkpoint.collectives import from_all, is_first
from sibert_jax.checkpoint.manifest import Manifest, as_text, own_parts, partial_digest, steps_in
from sibert_jax.errors import CheckpointError
from sibert_jax.files import atomically, user_path

# Seconds that the first process waits for the others' digests, once all have written.
GATHER_SECONDS = 600


@dataclasses.dataclass
class _Save:
    """A checkpoint being written."""

    step: int
    description: dict
    shapes: dict[str, jax.ShapeDtypeStruct]
    digests: concurrent.futures.Future  # digests of this process's shards, by leaf
    failure: Exception | None = None  # why there is no manifest


class Checkpoints:
    """The checkpoints in one directory: the newest `keep` that verify, and optionally the best.

    Each has two trees, `params` and `rest` (optimizer state, step, ...), and a description of the
    run. All processes of the run must call every method except `steps` and `description`.

    Args:
      directory: created if necessary; shared by all processes.
      keep: complete checkpoints to keep, at least 1; corrupt ones do not count and are left alone.
      say: called with a message on each skipped checkpoint.
      keep_best: whether to also keep that of the best evaluation, named by BEST in descriptions.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        keep: int,
        say: Callable[[str], None] = tell,
        *,
        keep_best: bool = False,
    ):
        self.directory = user_path(directory).absolute()
        self.seconds_blocked = 0.0  # total time that `save` and `wait` blocked their caller
        self._keep, self._keep_best, self._say = keep, keep_best, say
        self._problems: dict[int, str] = {}  # of the checkpoints examined; "" if one verifies
        self._saving: _Save | None = None
        self._finishing: concurrent.futures.Future | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = self._open()
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be kept in {self.directory}: {error}."
            ) from None

    def _open(self) -> ocp.CheckpointManager:
        # Naming the processes makes barriers something other than collectives, which could get
        # between those of the training step.
        processes = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix="checkpoints"
        )
        options = ocp.CheckpointManagerOptions(
            create=False,  # done
            multiprocessing_options=processes,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # do not read the files of damaged checkpoints
            async_options=ocp.AsyncOptions(
                timeout_secs=GATHER_SECONDS, post_finalization_callback=self._write_manifest
            ),
        )
        return ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, params: Any, rest: Any, description: dict) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: number of updates applied.
          params: tree of jax.Arrays.
          rest: likewise.
          description: a JSON value; the manifest's `run`.

        Raises:
          CheckpointError: this checkpoint cannot be started, or the previous one could not be
            finished.
        """
        self.wait()  # an error of the previous checkpoint must not be attributed to this one
        since = time.perf_counter()
        # Writing continues in the background, and on CPU would read the buffers that the next
        # update overwrites: the copy makes donation safe.
        trees = jax.tree.map(jnp.copy, {"params": params, "rest": rest})
        leaves = read.named(trees)
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in leaves.items()}
        parts = {name: own_parts(leaf) for name, leaf in leaves.items()}
        items = {item: ocp.args.StandardSave(tree) for item, tree in trees.items()}
        with self._reporting(step):
            self._make_room(step)
            digests = self._thread.submit(self._digest, step, shapes, parts)
            self._saving = _Save(step, description, shapes, digests)
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
            self._finishing = self._thread.submit(self._finish, self._saving)
        self.seconds_blocked += time.perf_counter() - since

    def _make_room(self, step: int) -> None:
        """Moves obstructing files aside for a checkpoint, without losing complete ones."""
        self._problems.pop(step, None)
        if is_first():
            retention.clear(self.directory, f"{step}.*")
            retention.set_aside(self.directory, step)
        from_all("")  # the others wait for it
        if step in self._manager.all_steps():
            self._manager.close()
            self._manager = self._open()

    def _digest(self, step: int, shapes: dict, parts: dict) -> dict[str, int]:
        """Digests the shards that this process saves, in the background.

        All but the first process write theirs to a file beside the checkpoint; a collective in a
        thread would have no fixed order relative to those of the training step.
        """
        sums = {
            name: sum(partial_digest(part, index, shapes[name].shape) for part, index in own)
            for name, own in parts.items()
        }
        if not is_first():
            with atomically(self._digests_of(step, jax.process_index())) as temporary:
                temporary.write_text(json.dumps(sums))
        return sums

    def _digests_of(self, step: int, process: int) -> pathlib.Path:
        return self.directory / f"{step}.digests.{process}"

    def _write_manifest(self) -> None:
        """Writes the manifest in process 0, in the background, before the commit."""
        saving = self._saving
        try:
            sums = saving.digests.result()
            deadline = time.monotonic() + GATHER_SECONDS
            for process in range(1, jax.process_count()):
                source = self._digests_of(saving.step, process)
                while not source.exists():
                    if time.monotonic() > deadline:
                        raise CheckpointError(f"process {process} left no digests in {source}")
                    time.sleep(0.01)
                for name, total in json.loads(source.read_text()).items():
                    sums[name] += total
                source.unlink()
            digests = {name: as_text(total) for name, total in sums.items()}
            (path,) = self.directory.glob(f"{saving.step}{retention.TEMPORARY}*")
            made = manifests.make(path, saving.step, saving.description, saving.shapes, digests)
            made.write(path)
        except Exception as error:  # raising here would leave the others waiting for the commit
            saving.failure = error

    def _finish(self, saving: _Save) -> None:
        """Waits for the commit, then reads back this process's share, in the background."""
        saving.digests.result()
        self._manager.wait_until_finished()
        if saving.failure is not None:
            retention.remove(self.directory / str(saving.step))
            raise saving.failure
        share = (jax.process_index(), jax.process_count())
        read.verify(self.directory / str(saving.step), share)
        if jax.process_count() == 1:
            self._settle(saving.step)

    def _settle(self, step: int) -> None:
        """Registers a checkpoint that has been read back, and removes those now too old."""
        self._problems[step] = ""
        if is_first():
            steps = steps_in(self.directory)
            if jax.process_count() == 1:  # with several processes, none reads everything
                for old in steps:
                    first_verified(self.directory, [old], self._problems, self._say)
            best = manifests.best_step(self.manifest(step)) if self._keep_best else None
            old = [found for found in steps if not self._is_damaged(found)][: -self._keep]
            retention.retire(self.directory, [found for found in old if found != best], self._say)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete; raises CheckpointError if it failed."""
        if self._finishing is None:
            return
        since, finishing, step = time.perf_counter(), self._finishing, self._saving.step
        self._finishing, failure = None, None
        try:
            with self._reporting(step):
                finishing.result()
        except CheckpointError as error:
            failure = error
        failures = from_all(str(failure or ""))
        self.seconds_blocked += time.perf_counter() - since
        if any(failures):
            if is_first():
                with contextlib.suppress(OSError):
                    retention.set_aside(self.directory, step)
            process = next(i for i, text in enumerate(failures) if text)
            if process == jax.process_index():
                raise failure
            raise CheckpointError(f"process {process}: {failures[process]}")
        if jax.process_count() > 1:
            self._settle(step)
            from_all("")  # so that the others see what the first process has left

    @contextlib.contextmanager
    def _reporting(self, step: int):
        try:
            yield
        except Exception as error:  # Orbax may raise anything here, always about this write
            text = str(error).strip() or type(error).__name__
            reason = next((line for line in reversed(text.splitlines()) if line.strip()), text)
            reason = reason.split(" [tensorstore_spec=")[0].rstrip(".")
            complete = [found for found in self.steps() if found != step]
            raise CheckpointError(
                f"the checkpoint at step {step} could not be written to {self.directory}: "
                f"{reason}. Complete checkpoints: {complete or 'none'}; free disk space or "
                "correct the path, then run again to resume."
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps, ascending, of checkpoints with a manifest and matching files.

        Array contents are verified only on demand: see `latest_step`.
        """
        return [step for step in steps_in(self.directory) if not self._is_damaged(step)]

    def _is_damaged(self, step: int) -> bool:
        """Tells whether a checkpoint lacks a file or is known not to verify."""
        if step in self._problems:
            return bool(self._problems[step])
        try:
            path = self.directory / str(step)
            manifests.check_files(path, manifests.read(path))
        except CheckpointError:
            return True
        return False

    def latest_step(self, multiple_of: int = 1, *, again: bool = False) -> int | None:
        """Returns the newest checkpoint that verifies, or None; each process reads a share.

        Newer ones that do not verify are reported in one line each and left alone.

        Args:
          multiple_of: steps divisible by this come first, however old.
          again: whether to re-read checkpoints examined before, as disks may lose data.
        """
        if again:
            self._problems.clear()
        steps = steps_in(self.directory)
        steps.sort(key=lambda step: (step % multiple_of == 0, step), reverse=True)
        return first_verified(self.directory, steps, self._problems, self._say)

    def manifest(self, step: int) -> Manifest:
        """Returns the manifest of a checkpoint."""
        return read.manifest_of(self.directory / str(step))

    def description(self, step: int) -> dict:
        """Returns the description that was given to `save`."""
        return self.manifest(step).run

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any]:
        """Reads a checkpoint onto any mesh and any number of processes.

        Args:
          step: one of `steps()`.
          params: tree of ShapeDtypeStructs with the target shardings.
          rest: likewise.

        Raises:
          CheckpointError: a leaf is missing, superfluous or of another shape or dtype, or its
            contents differ from what was saved.
        """
        wanted = {"params": params, "rest": rest}
        restored = read.restore_items(self.directory / str(step), wanted)
        return restored["params"], restored["rest"]

    def delete_after(self, step: int) -> None:
        """Removes the checkpoints after a step, to roll the run back to it."""
        self.wait()
        if is_first():
            later = [found for found in self.steps() if found > step]
            retention.retire(self.directory, later, self._say)
        from_all("")

    def close(self) -> None:
        """Waits for the last checkpoint and releases the threads."""
        self.wait()
        self._release()

    def _release(self) -> None:
        self._thread.shutdown()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.close()
        else:  # a failing write must not hide the original error
            with contextlib.suppress(Exception):
                self._release()
