"""The attention weights themselves, where something has to be done to them, as dropout does."""

import jax
import jax.numpy as jnp


def relu_weights(logits_BHLM: jax.Array, valid_B11M: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Normalizes ReLU(logits) over the valid keys: any positive degree -> 0.

    Padding is dropped by multiplication with 0, never by adding a large negative number, and a row
    without a positive score (a dead row) falls back to the mean over its valid keys; such a row
    sends no gradient to its query. Nothing is added to the row sum: an epsilon there would break
    scale invariance.

    Returns:
      weights_BHLM in the dtype of the logits, rows summing to 1, and dead_BHL1 (bool).
    """
    scores_BHLM = jnp.where(valid_B11M, jax.nn.relu(logits_BHLM.astype(jnp.float32)), 0.0)
    total_BHL1 = scores_BHLM.sum(axis=-1, keepdims=True)
    dead_BHL1 = total_BHL1 <= 0
    num_valid_B111 = valid_B11M.sum(axis=-1, keepdims=True, dtype=jnp.float32)
    uniform_B11M = valid_B11M.astype(jnp.float32) / jnp.maximum(num_valid_B111, 1)
    weights_BHLM = jnp.where(
        dead_BHL1, uniform_B11M, scores_BHLM / jnp.where(dead_BHL1, 1.0, total_BHL1)
    )
    return weights_BHLM.astype(logits_BHLM.dtype), dead_BHL1
