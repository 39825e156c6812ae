"""What a run's directory holds besides metrics and checkpoints, and whether it may be resumed."""

import fcntl
import functools
import json
import os
import pathlib
import platform
import socket
import subprocess
from typing import TextIO

import jax
import ml_collections
from clu import parameter_overview
from jax.sharding import Mesh

import sibert_jax
from sibert_jax.train.errors import ConfigError

# Keys that may change when a run is resumed: they say where and how long, not what is computed,
# or what to do about a bad step, which is decided when one has stopped the run.
MAY_CHANGE = (
    "model.attention_impl",  # changes rounding only, as does what is recomputed
    "model.remat",
    "mesh.",
    "distributed.",
    "checkpoint.",
    "train.compilation_cache_dir",
    "train.eval_",
    "train.on_bad_step",
    "train.spike_factor",
    "train.max_skips_in_a_row",
    "train.max_rollbacks",
    "train.replay_every_steps",
    "train.watchdog_secs",
    "data.cache_dir",
    "data.test_path",
    "task.max_answer_len",
    "task.n_best",
    "task.null_threshold",
    "task.strict",
)

# Keys that runs of earlier versions lack, with the value that does what those did.
ADDED = {
    "model.attention_impl": "auto",
    "model.remat_policy": "nothing_saveable",
    "task.loss_blocks": 1,
}

LOCK = "lock"  # names the process that is at work in the directory


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
    """{"a.b": value} of a nested dict; tuples become lists, as in JSON."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


# Keys that may differ between the processes of a run.
MAY_DIFFER = (
    "distributed.coordinator_address",
    "distributed.process_id",
    "data.cache_dir",
    "train.compilation_cache_dir",
)


def shared_facts(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, object]:
    """What must be the same in every process of a run before it looks at its data."""
    settings = flatten(config.to_dict())
    code = {"workdir": str(workdir.absolute())} | describe_code()
    return flatten(code) | {k: v for k, v in settings.items() if not k.startswith(MAY_DIFFER)}


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> TextIO:
    """Takes a directory for this run alone, and writes `config.json` or compares it.

    Returns:
      A file to close when the run ends. It holds a lock, which the kernel gives up with the
      process, however that ends.

    Raises:
      ConfigError: another run is at work in the directory, or it belongs to another
        configuration; nothing is changed then.
    """
    path = workdir / "config.json"
    _check_same(path, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("a+")
        try:
            _lock(lock, workdir)
            _check_same(path, config)  # the run that has just ended may have written it meanwhile
            write_json(path, config.to_dict())
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise ConfigError(f"--workdir={workdir} cannot be written: {error}.") from None
    return lock


def _lock(file: TextIO, workdir: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise ConfigError(
            f"{workdir} is in use by another run ({file.read().strip() or 'just started'}); wait "
            "for it, end it, or choose another --workdir. Nothing was changed."
        ) from None
    except OSError:  # a file system without locks, as some Lustre mounts
        return
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _check_same(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    workdir, new = path.parent, flatten(config.to_dict())
    if path.exists():
        try:
            old = flatten(json.loads(path.read_text()))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}); choose another --workdir.") from None
        old = {key: value for key, value in ADDED.items() if key in new} | old
        changed = [
            f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
        ]
        if changed:
            raise ConfigError(
                f"{workdir} holds a run of another configuration ({'; '.join(changed)}); give the "
                "same settings to resume it, or another --workdir. Nothing was changed."
            )
    elif workdir.exists() and {found.name for found in workdir.iterdir()} - {LOCK}:
        raise ConfigError(
            f"{workdir} is not empty and has no config.json, so it is no run of this program; "
            "choose another --workdir. Nothing was changed."
        )


def write_json(path: pathlib.Path, value: dict) -> None:
    """Replaces a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def describe_code() -> dict:
    """The commit of this package and the versions of what it uses."""
    status = _git("status", "--porcelain")
    versions = {"python": platform.python_version(), "sibert_jax": sibert_jax.__version__}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax.checkpoint", "numpy"):
        module = __import__(name, fromlist=["__version__"])
        versions[name] = module.__version__
    return {
        "git_commit": git_commit(),
        "git_dirty": None if status is None else bool(status),
        "versions": versions,
    }


def describe_run(mesh: Mesh, params, extra: dict) -> dict:
    """Contents of `run.json`: code, versions, devices, mesh and parameter table."""
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
    """Name, shape, dtype, size of every parameter, and their sum."""
    return parameter_overview.get_parameter_overview(params, include_stats="sharding")


@functools.cache
def git_commit() -> str | None:
    """The commit of this code, as of the first call; None where it is not in its own checkout."""
    return _git("rev-parse", "HEAD")


def _git(*args: str) -> str | None:
    here = pathlib.Path(sibert_jax.__file__).parents[1]
    # Installed below another project, the enclosing repository is not that of this package.
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or not this user's folder
        return None
    return done.stdout.strip()
