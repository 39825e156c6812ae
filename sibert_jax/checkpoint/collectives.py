"""Collectives by which the processes of a run agree on checkpoints.

Never call them in a background thread, where their order relative to those of the training step may
differ between processes.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from sibert_jax.checkpoint.manifest import MASK

TEXT_BYTES = 1024


def is_first() -> bool:
    """Tells whether this process writes manifests and decides."""
    return jax.process_index() == 0


def from_first(step: int | None) -> int | None:
    """Returns the step given by the first process, in all processes."""
    if jax.process_count() == 1:
        return step
    answer = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if answer < 0 else answer


def from_all(text: str) -> list[str]:
    """Returns the text of every process, by index, truncated to TEXT_BYTES."""
    if jax.process_count() == 1:
        return [text]
    row = np.frombuffer(text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0"), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(row))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def add(sums: dict[str, int]) -> dict[str, int]:
    """Adds digests modulo 2^64 over all processes, which must all pass the same names."""
    if jax.process_count() == 1:
        return sums
    halves = [divmod(total & MASK, 1 << 32) for total in sums.values()]  # JAX has no 64 bits here
    gathered = multihost_utils.process_allgather(np.array(halves, np.uint32))
    totals = [sum((int(high) << 32) + int(low) for high, low in leaf) for leaf in zip(*gathered)]
    return {name: total & MASK for name, total in zip(sums, totals)}
