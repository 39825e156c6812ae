"""What a run's directory holds besides metrics and checkpoints."""

import functools
import pathlib
import platform
import subprocess

import jax
import ml_collections
from clu import parameter_overview
from jax.sharding import Mesh

import sibert_jax
from sibert_jax.files import flatten

# Keys that runs of earlier versions lack, with the value that does what those did.
ADDED = {
    "model.attention_impl": "auto",
    "model.remat_policy": "nothing_saveable",
    "task.loss_blocks": 1,
    "train.extend": False,
}


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
