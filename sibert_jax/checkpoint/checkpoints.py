"""The checkpoints of a run: parameters, the rest of its state, and a manifest that proves them.

Orbax's CheckpointManager writes them in the background and commits each by a rename; the manifest
is in place by then. The names in the directory: see `retention`.
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

# Seconds that the first process waits for the digests of the others, once all have written.
GATHER_SECONDS = 600


@dataclasses.dataclass
class _Save:
    """A checkpoint that is being written."""

    step: int
    description: dict
    shapes: dict[str, jax.ShapeDtypeStruct]
    digests: concurrent.futures.Future  # of the shards of this process, by leaf
    failure: Exception | None = None  # why there is no manifest


class Checkpoints:
    """The checkpoints in one directory, the newest `keep` of those that verify, perhaps the best.

    Each holds two trees, `params` and `rest` (optimizer state, step, ...), and a description of the
    run. Every method but `steps` and `description` is called by all processes of the run.

    Args:
      directory: made if need be; shared by all processes.
      keep: complete checkpoints to keep, at least 1; a corrupt one does not count and stays.
      say: called with a line about each checkpoint that is skipped.
      keep_best: keep that of the best evaluation too, which descriptions name by BEST.
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
        self.seconds_blocked = 0.0  # how long `save` and `wait` held up their caller, in all
        self._keep, self._keep_best, self._say = keep, keep_best, say
        self._problems: dict[int, str] = {}  # of the checkpoints examined; "": it verifies
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
        # Barriers are collectives unless the processes are named: then they cannot get between the
        # collectives of the training step.
        processes = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix="checkpoints"
        )
        options = ocp.CheckpointManagerOptions(
            create=False,  # done
            multiprocessing_options=processes,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # does not read the files of damaged checkpoints
            async_options=ocp.AsyncOptions(
                timeout_secs=GATHER_SECONDS, post_finalization_callback=self._write_manifest
            ),
        )
        return ocp.CheckpointManager(self.directory, options=options)

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
        since = time.perf_counter()
        # Writing continues in the background, and on CPU it would read the very buffers that the
        # next update overwrites: the copy is what makes donation safe.
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
        """Moves what stands in the way of a checkpoint aside; nothing complete is lost."""
        self._problems.pop(step, None)
        if is_first():
            retention.clear(self.directory, f"{step}.*")
            retention.set_aside(self.directory, step)
        from_all("")  # the others wait for it
        if step in self._manager.all_steps():
            self._manager.close()
            self._manager = self._open()

    def _digest(self, step: int, shapes: dict, parts: dict) -> dict[str, int]:
        """In the background: digests the shards that this process saves.

        All but the first process leave theirs in a file beside the checkpoint; a collective is not
        possible in a thread, where its order against those of the training step would vary.
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
        """In the background, in process 0: all has been written, but not yet been committed."""
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
        except Exception as error:  # raised here, it would leave the others waiting for the commit
            saving.failure = error

    def _finish(self, saving: _Save) -> None:
        """In the background: waits for the commit, then reads this process's share back."""
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
        """Counts a checkpoint that has been read back, and removes those that are too old now."""
        self._problems[step] = ""
        if is_first():
            steps = steps_in(self.directory)
            if jax.process_count() == 1:  # one of several does not read what all have written
                for old in steps:
                    first_verified(self.directory, [old], self._problems, self._say)
            best = manifests.best_step(self.manifest(step)) if self._keep_best else None
            old = [found for found in steps if not self._is_damaged(found)][: -self._keep]
            retention.retire(self.directory, [found for found in old if found != best], self._say)

    def wait(self) -> None:
        """Returns when the last checkpoint is complete; raises CheckpointError if it failed."""
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
            from_all("")  # the others see what the first one has left

    @contextlib.contextmanager
    def _reporting(self, step: int):
        try:
            yield
        except Exception as error:  # Orbax raises many kinds, all of them about this write
            text = str(error).strip() or type(error).__name__
            reason = next((line for line in reversed(text.splitlines()) if line.strip()), text)
            reason = reason.split(" [tensorstore_spec=")[0].rstrip(".")
            complete = [found for found in self.steps() if found != step]
            raise CheckpointError(
                f"the checkpoint at step {step} could not be written to {self.directory}: "
                f"{reason}. Complete ones: {complete or 'none'}; make room or correct the path, "
                "then run again to resume."
            ) from error

    def steps(self) -> list[int]:
        """Steps, ascending, of the checkpoints that have their manifest and their files.

        The numbers in them are only compared when one is needed: see `latest_step`.
        """
        return [step for step in steps_in(self.directory) if not self._is_damaged(step)]

    def _is_damaged(self, step: int) -> bool:
        """Whether a checkpoint lacks a file, or is known not to verify."""
        if step in self._problems:
            return bool(self._problems[step])
        try:
            path = self.directory / str(step)
            manifests.check_files(path, manifests.read(path))
        except CheckpointError:
            return True
        return False

    def latest_step(self, multiple_of: int = 1, *, again: bool = False) -> int | None:
        """The newest checkpoint that verifies, None if none does; each process reads a share.

        Each newer one that does not is named in one line and left as it is.

        Args:
          multiple_of: steps that this divides come first, however old.
          again: also reads what has been examined before, as disks may lose what they had.
        """
        if again:
            self._problems.clear()
        steps = steps_in(self.directory)
        steps.sort(key=lambda step: (step % multiple_of == 0, step), reverse=True)
        return first_verified(self.directory, steps, self._problems, self._say)

    def manifest(self, step: int) -> Manifest:
        """The manifest of a checkpoint."""
        return read.manifest_of(self.directory / str(step))

    def description(self, step: int) -> dict:
        """The description that was given to `save`."""
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
        restored = read.restore_items(self.directory / str(step), wanted)
        return restored["params"], restored["rest"]

    def delete_after(self, step: int) -> None:
        """Removes the checkpoints after a step, when the run is rolled back to it."""
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
        else:  # a failing write must not hide what went wrong first
            with contextlib.suppress(Exception):
                self._release()
