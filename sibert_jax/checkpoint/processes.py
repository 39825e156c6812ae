"""What the processes of a run tell each other about checkpoints; with one process, nothing."""

import json
import pathlib
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from sibert_jax.checkpoint.digest import MASK
from sibert_jax.errors import CheckpointError
from sibert_jax.files import atomically

# Seconds that the first process waits for the digests of the others, once all have written.
GATHER_SECONDS = 600


def is_first() -> bool:
    """Whether this process writes manifests and decides."""
    return jax.process_index() == 0


def from_first(step: int | None) -> int | None:
    """The first process's answer, on all of them."""
    if jax.process_count() == 1:
        return step
    answer = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if answer < 0 else answer


def all_succeeded(here: bool) -> bool:
    """Whether every process says so."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.int32(here))))


def add(sums: dict[str, int]) -> dict[str, int]:
    """Adds digests modulo 2^64 over all processes, which all call this with the same names."""
    if jax.process_count() == 1:
        return sums
    halves = [divmod(total & MASK, 1 << 32) for total in sums.values()]  # JAX has no 64 bits here
    gathered = multihost_utils.process_allgather(np.array(halves, np.uint32))
    totals = [sum((int(high) << 32) + int(low) for high, low in leaf) for leaf in zip(*gathered)]
    return {name: total & MASK for name, total in zip(sums, totals)}


def leave_sums(path: pathlib.Path, sums: dict[str, int]) -> None:
    """Leaves this process's share of the digests in a file beside the checkpoint.

    A collective would do as well, but not in a background thread, where its order against the
    training step's own collectives is not the same on all processes.
    """
    target = path.with_name(f"{path.name}.{jax.process_index()}")
    with atomically(target) as temporary:
        temporary.write_text(json.dumps(sums))


def gather_sums(path: pathlib.Path, sums: dict[str, int]) -> dict[str, int]:
    """On the first process: adds what the others left, waiting for them."""
    deadline = time.monotonic() + GATHER_SECONDS
    for index in range(1, jax.process_count()):
        source = path.with_name(f"{path.name}.{index}")
        while not source.exists():
            if time.monotonic() > deadline:
                raise CheckpointError(f"process {index} did not finish its part: no {source}.")
            time.sleep(0.01)
        for name, total in json.loads(source.read_text()).items():
            sums[name] += total
    return sums
