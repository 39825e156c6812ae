"""The workdir of a run: claimed, described, and cleaned up if no step was taken."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping

import jax
import ml_collections
from clu import parameter_overview
from jax.sharding import Mesh

from sibert_jax.checkpoint import steps_in
from sibert_jax.errors import ConfigError
from sibert_jax.files import flatten, write_json
from sibert_jax.runtime import lock
from sibert_jax.runtime.provenance import describe_code
from sibert_jax.train.config import keys_where
from sibert_jax.train.resolve import read_settings

LENGTH = ("train.num_steps", "train.num_epochs")
MADE_BEFORE_A_STEP = ("goodput.json", "checkpoints")  # created by a run before its first step


class Claim:
    """Exclusive use of a directory until closed; a context manager.

    Before `begin`, closing it removes what this start has created, and nothing else.

    Args:
      directory: the workdir, created if necessary.
      config: the resolved config.

    Raises:
      ConfigError: another run is using the directory, or it contains something else or a checkpoint
        of another config; nothing is changed then.
    """

    def __init__(self, directory: pathlib.Path, config: ml_collections.ConfigDict):
        self._directory, self._config, self._begun = directory, config, False
        check_free(directory, config)
        self._made = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            self._lock, is_new = lock.lock_directory(directory)
        except lock.InUse as holder:
            raise ConfigError(
                f"{directory} is in use by another run ({holder}); wait for it, end it, or choose "
                "another --workdir. Nothing was changed."
            ) from None
        except OSError as error:
            self._remove_directories()
            raise ConfigError(f"--workdir={directory} cannot be written: {error}.") from None
        self._to_make = [name for name in MADE_BEFORE_A_STEP if not (directory / name).exists()]
        if is_new:
            self._to_make.append(lock.NAME)
        try:
            check_free(directory, config)  # a run that has just ended may have changed it
        except ConfigError:
            self.close()
            raise

    def begin(self, first_step: int, say: Callable[[str], None]) -> None:
        """Writes `config.json`; from now on everything is kept.

        Args:
          first_step: updates done so far; at 0, the rows of an earlier run without a checkpoint are
            dropped, with a message, and its results are renamed.
          say: called with messages.
        """
        try:
            if first_step == 0:
                _set_aside(self._directory, say)
            write_json(self._directory / "config.json", self._config.to_dict())
        except OSError as error:
            raise ConfigError(f"--workdir={self._directory} cannot be written: {error}.") from None
        self._begun = True

    def close(self) -> None:
        """Releases the directory."""
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
    """Raises ConfigError if a directory contains something else or a checkpoint of another config.

    A run's directory without a checkpoint is free, whatever its config.
    """
    if directory.is_file():
        raise ConfigError(f"--workdir={directory} is a file; name a directory.")
    path, steps = directory / "config.json", steps_in(directory / "checkpoints")
    if steps:
        check_same(directory, read_settings(path), config.to_dict(), steps[-1])
    elif (names := _names(directory)) and not _is_run(directory, names):
        raise ConfigError(
            f"{directory} is not empty and has no config.json, so it is not the workdir of a run; "
            "choose another --workdir. Nothing was changed."
        )


def check_same(directory: pathlib.Path, old: Mapping, new: Mapping, newest: int) -> None:
    """Raises ConfigError for settings with which a run cannot be resumed.

    Args:
      directory: the workdir, for the message.
      old: its existing settings, a nested mapping.
      new: the settings of this start.
      newest: step of its newest checkpoint.

    Raises:
      ConfigError: a key that may not change (`keys.key`) differs, or the length differs although
        schedules are not constant and `train.extend` is not set.
    """
    free = keys_where("may_change", new)
    old, new = flatten(old), flatten(new)
    changed = [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in free and not (key in LENGTH and key in old)
    ]
    if changed:
        raise ConfigError(
            f"{directory} holds a run of another configuration ({'; '.join(changed)}); give the "
            "same settings to resume it, or another --workdir. Nothing was changed."
        )
    for key in LENGTH:
        if new[key] == old[key] or new[key] == 0:
            continue
        if key == "train.num_steps" and new[key] < newest:
            raise too_short(key, new[key], newest)
        schedules = _depending_on_length(new)
        if schedules and not new["train.extend"]:
            raise ConfigError(
                f"{directory} holds a run of {key}={old[key]}, now it is {new[key]}, and the "
                f"learning rate follows from it ({', '.join(schedules)}): give "
                "--config.train.extend=True to continue with the schedule of the new length, or "
                f"--config.{key}={old[key]}. Nothing was changed."
            )


def _depending_on_length(settings: Mapping) -> list[str]:
    """Returns the active schedules that depend on the length of the run."""
    sections = ["optim"]
    if settings["optim.head.name"] != "same":
        sections.append("optim.head")
    if settings["optim.other.pattern"]:
        sections.append("optim.other")
    return [
        f"{section}.schedule={settings[f'{section}.schedule']!r}"
        for section in sections
        if settings[f"{section}.schedule"] != "constant"
        or settings[f"{section}.warmup_fraction"] > 0
    ]


def too_short(key: str, num_steps: int, newest: int) -> ConfigError:
    """Returns the error for a length that the run has already exceeded."""
    return ConfigError(
        f"{key} gives {num_steps:,} steps, but the newest checkpoint is at step {newest:,}; set "
        "at least as many, or choose another --workdir. Nothing was changed."
    )


def _names(directory: pathlib.Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return set()


def _is_run(directory: pathlib.Path, names: set[str]) -> bool:
    """Tells whether this program has used the directory: its lock, or one of our configs."""
    if lock.NAME in names and lock.is_lock(directory / lock.NAME):
        return True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads((directory / "config.json").read_text())
        return {"task", "model", "data", "optim", "train", "checkpoint"} <= settings.keys()
    return False


def _set_aside(directory: pathlib.Path, say: Callable[[str], None]) -> None:
    """Reports that a run's rows are dropped; renames the results of a finished run."""
    metrics, results = directory / "metrics.jsonl", directory / "results.json"
    if results.exists():  # whose checkpoints were removed
        for path in (results, metrics):
            if path.exists():
                path.replace(path.with_stem(f"{path.stem}.old"))
        say(
            f"{directory} has no checkpoint, so the run starts at step 0; the results and metrics "
            "of the previous run are in results.old.json and metrics.old.jsonl"
        )
    elif metrics.exists() and (rows := len(metrics.read_bytes().splitlines())):
        say(
            f"{directory} has no checkpoint, so the run starts at step 0; the {rows} rows that "
            "the previous start wrote to metrics.jsonl are dropped"
        )


def _remove(path: pathlib.Path) -> None:
    """Removes a file or an empty directory."""
    with contextlib.suppress(OSError):  # such as a directory that is not empty
        path.rmdir() if path.is_dir() else path.unlink()


def shared_facts(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, object]:
    """Returns facts that must agree in all processes of a run before it reads its data."""
    settings = config.to_dict()
    own = keys_where("per_process", settings)
    code = {"workdir": str(workdir.absolute())} | describe_code()
    return flatten(code) | {k: v for k, v in flatten(settings).items() if k not in own}


def describe_run(mesh: Mesh, params, extra: dict) -> dict:
    """Returns the contents of `run.json`: code, versions, devices, mesh and parameter table."""
    return {
        **describe_code(),
        "devices": [str(device) for device in mesh.devices.flat],
        "device_kind": mesh.devices.flat[0].device_kind,
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "parameters": parameter_table(params).splitlines(),
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        **extra,
    }


def parameter_table(params) -> str:
    """Formats name, shape, dtype and size of every parameter, and the total."""
    return parameter_overview.get_parameter_overview(params, include_stats="sharding")
