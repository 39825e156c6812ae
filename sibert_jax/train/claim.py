"""Takes a directory for one run, and gives it back as it was if no step was taken."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Callable
from typing import TextIO

import ml_collections

from sibert_jax.checkpoint.directory import steps_in
from sibert_jax.errors import ConfigError
from sibert_jax.files import flatten, write_json
from sibert_jax.train import length
from sibert_jax.train.resolve import read_settings
from sibert_jax.train.workdir import ADDED

# Keys that may change when a run is resumed: they say where things are and what is shown of them,
# not what is computed, or what to do about a bad step, which is decided when one has stopped the
# run. What `length.py` says of the length comes on top.
MAY_CHANGE = (
    "model.attention_impl",  # changes rounding only, as does what is recomputed
    "model.remat",
    "mesh.",
    "distributed.",
    "checkpoint.",
    "train.compilation_cache_dir",
    "train.eval_",
    "train.extend",
    "train.log_every_steps",
    "train.on_bad_step",
    "train.spike_factor",
    "train.max_skips_in_a_row",
    "train.max_rollbacks",
    "train.replay_every_steps",
    "train.watchdog_secs",
    "data.cache_dir",
    "data.test_path",
    "data.vocab",  # another vocabulary has another fingerprint, which the checkpoint has
    "task.max_answer_len",
    "task.n_best",
    "task.null_threshold",
    "task.strict",
)
LOCK = "lock"  # names the process that is at work in the directory
MADE_BEFORE_A_STEP = ("goodput.json", "checkpoints")  # by a run in its workdir


class Claim:
    """A directory that is this run's alone until it is closed; a context manager.

    It holds a lock, which the kernel gives up with the process, however that ends. Until `begin`,
    closing it removes what this start has made, and nothing else.

    Args:
      directory: the workdir, made if need be.
      config: resolved.

    Raises:
      ConfigError: another run is at work in the directory, or it holds something else or a
        checkpoint of another configuration; nothing is changed then.
    """

    def __init__(self, directory: pathlib.Path, config: ml_collections.ConfigDict):
        self._directory, self._config, self._begun = directory, config, False
        check_free(directory, config)
        self._made = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            self._lock, is_new = _lock(directory)
        except OSError as error:
            self._remove_directories()
            raise ConfigError(f"--workdir={directory} cannot be written: {error}.") from None
        self._to_make = [name for name in MADE_BEFORE_A_STEP if not (directory / name).exists()]
        if is_new:
            self._to_make.append(LOCK)
        try:
            check_free(directory, config)  # the run that has just ended may have changed it
        except ConfigError:
            self.close()
            raise

    def begin(self, first_step: int, say: Callable[[str], None]) -> None:
        """Writes `config.json`; from now on everything stays.

        Args:
          first_step: updates done so far; at 0, what an earlier run without a checkpoint has left
            is told and put out of the way.
          say: takes a line.
        """
        try:
            if first_step == 0:
                _pass_over(self._directory, say)
            write_json(self._directory / "config.json", self._config.to_dict())
        except OSError as error:
            raise ConfigError(f"--workdir={self._directory} cannot be written: {error}.") from None
        self._begun = True

    def close(self) -> None:
        """Frees the directory."""
        if not self._begun:
            for name in self._to_make:
                _remove(self._directory / name)
            self._remove_directories()
        self._lock.close()

    def _remove_directories(self) -> None:
        for path in self._made:
            _remove(path)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def check_free(directory: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a directory that holds something else, or a checkpoint of another configuration.

    Without a checkpoint, the directory of a run is free, whatever that run was.
    """
    if directory.is_file():
        raise ConfigError(f"--workdir={directory} is a file; name a directory.")
    path, steps = directory / "config.json", steps_in(directory / "checkpoints")
    if steps:
        old, new = flatten(read_settings(path)), flatten(config.to_dict())
        _check_same(directory, {k: v for k, v in ADDED.items() if k in new} | old, new)
        length.check(directory, old, new, steps[-1])
    elif (names := _names(directory)) and not _is_run(directory, names):
        raise ConfigError(
            f"{directory} is not empty and has no config.json of a run, so it is no run of this "
            "program; choose another --workdir. Nothing was changed."
        )


def _check_same(directory: pathlib.Path, old: dict, new: dict) -> None:
    changed = [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith((*MAY_CHANGE, *length.KEYS))
    ]
    if changed:
        raise ConfigError(
            f"{directory} holds a run of another configuration ({'; '.join(changed)}); give the "
            "same settings to resume it, or another --workdir. Nothing was changed."
        )


def _names(directory: pathlib.Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return set()


def _is_run(directory: pathlib.Path, names: set[str]) -> bool:
    """Whether a start of this program has been here: its lock, or a config of ours."""
    if LOCK in names:
        try:
            if (directory / LOCK).read_text()[:4] in ("pid ", ""):  # "": it starts at this moment
                return True
        except FileNotFoundError:  # a start that failed has removed it meanwhile
            return True
        except (OSError, ValueError):
            pass
    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads((directory / "config.json").read_text())
        return {"task", "model", "data", "optim", "train", "checkpoint"} <= settings.keys()
    return False


def _lock(directory: pathlib.Path) -> tuple[TextIO, bool]:
    """The locked file, and whether no run has held it before."""
    path = directory / LOCK
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:  # a start that failed has removed the directory meanwhile
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "just started"
            file.close()
            raise ConfigError(
                f"{directory} is in use by another run ({holder}); wait for it, end it, or choose "
                "another --workdir. Nothing was changed."
            ) from None
        except OSError:  # a file system without locks, as some Lustre mounts
            break
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # or this file
    file.seek(0)
    is_new = file.read() == ""
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file, is_new


def _pass_over(directory: pathlib.Path, say: Callable[[str], None]) -> None:
    """Says that a run's rows are dropped; the results of a finished one are put aside."""
    metrics, results = directory / "metrics.jsonl", directory / "results.json"
    if results.exists():  # whose checkpoints were removed
        for path in (results, metrics):
            if path.exists():
                path.replace(path.with_stem(f"{path.stem}.old"))
        say(
            f"{directory} has no checkpoint, so the run starts at step 0; the results and metrics "
            "of the one before are in results.old.json and metrics.old.jsonl"
        )
    elif metrics.exists() and (rows := len(metrics.read_bytes().splitlines())):
        say(
            f"{directory} has no checkpoint, so the run starts at step 0; the {rows} rows in "
            "metrics.jsonl of the start before are dropped"
        )


def _remove(path: pathlib.Path) -> None:
    """Removes a file or an empty directory."""
    with contextlib.suppress(OSError):  # such as a directory that is not empty
        path.rmdir() if path.is_dir() else path.unlink()
