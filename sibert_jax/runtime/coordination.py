"""Notes and barriers between the processes of a run, outside of the devices.

JAX starts a coordination service in process 0. Of its client only `jax.distributed.initialize`,
`is_initialized` and `shutdown` are public; notes and barriers with a name and a timeout are not, so
this is the one file that reaches for the client itself (as Orbax and Flax do).
"""

import time

import jax
from jax._src import distributed

NOT_FOUND, ALREADY_EXISTS, DEADLINE_EXCEEDED = "NOT_FOUND", "ALREADY_EXISTS", "DEADLINE_EXCEEDED"


def index() -> int:
    """The number of this process; unlike `jax.process_index()` it does not start the devices."""
    return distributed.global_state.process_id


def count() -> int:
    """The number of processes."""
    return distributed.global_state.num_processes


def address() -> str:
    """The address of process 0, "host:port"; "" before that is known."""
    return distributed.global_state.coordinator_address or ""


def put(key: str, value: str, *, overwrite: bool = False) -> bool:
    """Leaves a note for all; without `overwrite` the first one stays. Whether this one did."""
    try:
        distributed.global_state.client.key_value_set(key, value, allow_overwrite=overwrite)
    except jax.errors.JaxRuntimeError as error:
        if ALREADY_EXISTS not in str(error):
            raise
        return False
    return True


def get(key: str) -> str | None:
    """Reads a note; None if there is none."""
    try:
        return distributed.global_state.client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if NOT_FOUND not in str(error):
            raise
        return None


def entries(folder: str) -> dict[int, str]:
    """The notes `folder/<index>`, by index."""
    found = distributed.global_state.client.key_value_dir_get(folder)
    return {int(key.rsplit("/", 1)[1]): value for key, value in found}


def barrier(name: str, timeout_secs: float) -> list[int]:
    """Waits until all processes are here; returns those that were not in time, [] if all were."""
    put(f"barrier/{name}/{index()}", "here")
    try:
        distributed.global_state.client.wait_at_barrier(name, int(timeout_secs * 1000))
    except jax.errors.JaxRuntimeError as error:
        if DEADLINE_EXCEEDED not in str(error):
            raise
        return sorted(set(range(count())) - set(entries(f"barrier/{name}")))
    return []


def wait(key: str, timeout_secs: float) -> str | None:
    """Reads a note as soon as it is there; None if it is not in time."""
    until = time.monotonic() + timeout_secs
    while (value := get(key)) is None and time.monotonic() < until:
        time.sleep(0.05)
    return value
