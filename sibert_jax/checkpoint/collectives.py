"""What the processes of a run tell each other about checkpoints.

These are collectives: never in a background thread, where their order against those of the training
step is not the same in all processes.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from sibert_jax.checkpoint.manifest import MASK

TEXT_BYTES = 1024


def is_first() -> bool:
    """Whether this process writes manifests and decides."""
    return jax.process_index() == 0


def from_first(step: int | None) -> int | None:
    """The step that the first process gives, in all processes."""
    if jax.process_count() == 1:
        return step
    answer = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if answer < 0 else answer


def from_all(text: str) -> list[str]:
    """The text of every process, by index, cut to TEXT_BYTES."""
    if jax.process_count() == 1:
        return [text]
    row = np.frombuffer(text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0"), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(row))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def add(sums: dict[str, int]) -> dict[str, int]:
    """Adds digests modulo 2^64 over all processes, which all call this with the same names."""
    if jax.process_count() == 1:
        return sums
    halves = [divmod(total & MASK, 1 << 32) for total in sums.values()]  # JAX has no 64 bits here
    gathered = multihost_utils.process_allgather(np.array(halves, np.uint32))
    totals = [sum((int(high) << 32) + int(low) for high, low in leaf) for leaf in zip(*gathered)]
    return {name: total & MASK for name, total in zip(sums, totals)}
