"""Computes a step twice and compares the bits, to detect faulty hardware.

The same compiled program runs on the same state and batch, so on sound hardware every bit is equal;
on a GPU this requires --xla_gpu_deterministic_ops=true in XLA_FLAGS. An error that occurs
identically both times is not detected.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.errors import FaultError
from sibert_jax.trees import path_name

BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}
NAMED = 3  # leaves named in the message


def step_twice(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, batch: Any
) -> tuple[Any, Any]:
    """Runs one step, accepted only if a second computation has the same bits.

    Args:
      step: takes state and batch, returns the next state, which has a `step`, and a report; may
        donate the state, as it is first called on a copy, which needs memory for one more.
      state: the state, donated.
      batch: the batch of the step.

    Raises:
      FaultError: the two differ; the message names the step and the leaves.
    """
    first = step(jax.tree.map(jnp.copy, state), batch)
    second = step(state, batch)
    if names := different_leaves(first[0], second[0]):
        shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        raise FaultError(
            f"step {int(second[0].step)} computed twice gives different bits in {len(names)} of "
            f"{len(jax.tree.leaves(first[0]))} leaves ({shown}): a device computes wrongly, or its "
            "operations are not deterministic. Neither result was accepted or saved; take the "
            "device out and run again to resume from the newest checkpoint."
        )
    return second


def different_leaves(a, b) -> list[str]:
    """Returns the paths of the leaves whose bits differ between two trees."""
    differ = jax.device_get(_differ(a, b))
    return [
        path_name(path)
        for path, found in jax.tree_util.tree_leaves_with_path(differ)
        if np.any(found)
    ]


@jax.jit
def _differ(a, b):
    return jax.tree.map(lambda x, y: jnp.any(_bits(x) != _bits(y)), a, b)


def _bits(x: jax.Array) -> jax.Array:
    # As integers, since NaN differs from itself and 0.0 equals -0.0.
    if x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.integer):
        return x
    return jax.lax.bitcast_convert_type(x, BITS[x.dtype.itemsize])
