"""The running code: its commit and the versions of its dependencies."""

import functools
import pathlib
import platform
import subprocess

import sibert_jax


def describe_code() -> dict:
    """Returns the commit of this package and the versions of its dependencies."""
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


@functools.cache
def git_commit() -> str | None:
    """Returns the commit at the first call; None if the code is not in its own checkout."""
    return _git("rev-parse", "HEAD")


def _git(*args: str) -> str | None:
    here = pathlib.Path(sibert_jax.__file__).parents[1]
    # If installed inside another project, the enclosing repository is not this package's.
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or not this user's folder
        return None
    return done.stdout.strip()
