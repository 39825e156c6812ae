"""The mean over the valid keys of each row: what a row without a positive score attends to."""

import jax
import jax.numpy as jnp

from sibert_jax.model.relu_attention.rows import accumulator


def mean_value(v_BHMK: jax.Array, valid_BM: jax.Array) -> jax.Array:
    """The mean over the valid keys, (B, H, 1, K); 0 where there is none."""
    dtype = accumulator(v_BHMK.dtype)
    valid_B1M1 = valid_BM[:, None, :, None]
    total_BH1K = jnp.where(valid_B1M1, v_BHMK.astype(dtype), 0.0).sum(axis=2, keepdims=True)
    return total_BH1K / jnp.maximum(valid_B1M1.sum(axis=2, keepdims=True, dtype=dtype), 1)


def mean_value_of_segment(
    v_BHMK: jax.Array, valid_BM: jax.Array, segments_BL: jax.Array
) -> jax.Array:
    """The mean over the valid keys of each row's own segment, (B, H, L, K); 0 where there is none.

    Sums by segment, so that no L×M array is made.
    """

    def example(v_HMK, valid_M, segments_L):
        values_MHK = jnp.where(valid_M[:, None, None], jnp.swapaxes(v_HMK, 0, 1), 0.0)
        num = segments_L.shape[0]
        total_SHK = jax.ops.segment_sum(values_MHK, segments_L, num)
        count_S11 = jax.ops.segment_sum(valid_M.astype(total_SHK.dtype), segments_L, num)
        mean_SHK = total_SHK / jnp.maximum(count_S11, 1)[:, None, None]
        return jnp.swapaxes(mean_SHK[segments_L], 0, 1)

    return jax.vmap(example)(v_BHMK.astype(accumulator(v_BHMK.dtype)), valid_BM, segments_BL)
