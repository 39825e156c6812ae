"""The operation: layout, masks, choice of a form, dead rows; and the weights alone."""

import jax
import jax.numpy as jnp

from sibert_jax.model.constraints import shard_map
from sibert_jax.model.relu_attention import einsum
from sibert_jax.model.relu_attention.einsum import accumulator


def _blockwise(*arrays, causal):
    from sibert_jax.model.relu_attention import blockwise  # only for long sequences

    return blockwise.attend(*arrays, causal)


def _pallas(*arrays, causal):
    if jax.default_backend() == "gpu":  # experimental in JAX: imported only on request
        from sibert_jax.model.relu_attention import pallas_gpu as kernels
    else:
        from sibert_jax.model.relu_attention import pallas_tpu as kernels

    # XLA cannot partition a kernel over devices.
    letters = ("BHLK", "BHMK", "BHMK", "BL", "BM"), ("BHLK", "BHL")
    return shard_map(lambda *shards: kernels.attend(*shards, causal), *letters)(*arrays)


def _einsum(*arrays, causal):
    return einsum.attend(*arrays, causal)


FORMS = {"einsum": _einsum, "blockwise": _blockwise, "pallas": _pallas}
IMPLS = ("auto", *FORMS)
LONG = 1024  # tokens from which "auto" avoids storing L×M arrays


def choose(impl: str, length: int) -> str:
    """Resolves "auto": "einsum" for fewer than 1,024 tokens, otherwise "blockwise"."""
    if impl == "auto":
        return "blockwise" if length >= LONG else "einsum"
    return impl


def relu_attention(
    q_BLHK: jax.Array,
    k_BLHK: jax.Array,
    v_BLHK: jax.Array,
    mask_BL: jax.Array,
    segments_BL: jax.Array | None = None,
    *,
    causal: bool = False,
    impl: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Self-attention with weights ReLU(q·k) / Σ ReLU(q·k): N(ReLU(QKᵀ))V of Li et al. 2022, Fig. 7.

    Degree 0 in q and k, 1 in v; a factor 1/√K would cancel. A row without a positive score (a dead
    row) gives the mean value over the valid keys that it may attend to, or 0 if there are none, and
    sends no gradient to q and k. Products and sums accumulate in float32.

    Args:
      q_BLHK: queries, float32 or bfloat16.
      k_BLHK: keys, likewise.
      v_BLHK: values, likewise.
      mask_BL: bool, False on padding: no row attends to it.
      segments_BL: int in [0, L), for several texts per sequence: a row attends only to keys of its
        own segment. None: one segment.
      causal: whether a row attends only to itself and earlier rows; each segment must then be
        contiguous.
      impl: one of IMPLS; "pallas" on TPUs and NVIDIA GPUs only.

    Returns:
      out_BLHK in the dtype of v, and the dead rows (B, H, L, 1), bool.

    Raises:
      ValueError: `impl` is unknown.

    Example:
      >>> out_BLHK, dead_BHL1 = relu_attention(q_BLHK, k_BLHK, v_BLHK, mask_BL)
    """
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is unknown; choose one of {list(IMPLS)}.")
    query_ids_BL = jnp.zeros(mask_BL.shape, jnp.int32) if segments_BL is None else segments_BL
    key_ids_BL = jnp.where(mask_BL, query_ids_BL, -1)
    q_BHLK, k_BHLK, v_BHLK = (jnp.swapaxes(x, 1, 2) for x in (q_BLHK, k_BLHK, v_BLHK))
    attend = FORMS[choose(impl, q_BLHK.shape[1])]
    out_BHLK, total_BHL = attend(q_BHLK, k_BHLK, v_BHLK, query_ids_BL, key_ids_BL, causal=causal)
    dead_BHL1 = total_BHL[..., None] <= 0
    if causal:
        mean_BHLK = causal_mean_value(v_BHLK, mask_BL, segments_BL)
    elif segments_BL is None:
        mean_BHLK = mean_value(v_BHLK, mask_BL)
    else:
        mean_BHLK = mean_value_of_segment(v_BHLK, mask_BL, segments_BL)
    out_BHLK = jnp.where(dead_BHL1, mean_BHLK.astype(v_BHLK.dtype), out_BHLK)
    return jnp.swapaxes(out_BHLK, 1, 2), dead_BHL1


def mean_value(v_BHMK: jax.Array, mask_BM: jax.Array) -> jax.Array:
    """The mean value over the valid keys, (B, H, 1, K); 0 if there are none."""
    dtype = accumulator(v_BHMK.dtype)
    mask_B1M1 = mask_BM[:, None, :, None]
    total_BH1K = jnp.where(mask_B1M1, v_BHMK.astype(dtype), 0.0).sum(axis=2, keepdims=True)
    return total_BH1K / jnp.maximum(mask_B1M1.sum(axis=2, keepdims=True, dtype=dtype), 1)


def mean_value_of_segment(
    v_BHMK: jax.Array, mask_BM: jax.Array, segments_BL: jax.Array
) -> jax.Array:
    """The mean value over the valid keys of each row's segment, (B, H, L, K); 0 if there are none.

    Uses segment sums, so no L×M array is created.
    """

    def example(v_HMK, valid_M, segments_L):
        values_MHK = jnp.where(valid_M[:, None, None], jnp.swapaxes(v_HMK, 0, 1), 0.0)
        num = segments_L.shape[0]
        total_SHK = jax.ops.segment_sum(values_MHK, segments_L, num)
        count_S11 = jax.ops.segment_sum(valid_M.astype(total_SHK.dtype), segments_L, num)
        mean_SHK = total_SHK / jnp.maximum(count_S11, 1)[:, None, None]
        return jnp.swapaxes(mean_SHK[segments_L], 0, 1)

    return jax.vmap(example)(v_BHMK.astype(accumulator(v_BHMK.dtype)), mask_BM, segments_BL)


def causal_mean_value(
    v_BHMK: jax.Array, mask_BM: jax.Array, segments_BM: jax.Array | None
) -> jax.Array:
    """The mean value over valid keys of the segment up to each row, (B, H, M, K); 0 if none."""
    dtype = accumulator(v_BHMK.dtype)
    mask_B1M1 = mask_BM[:, None, :, None]
    values = jnp.where(mask_B1M1, v_BHMK.astype(dtype), 0.0), mask_B1M1.astype(dtype)
    if segments_BM is None:
        total_BHMK, count_B1M1 = (jnp.cumsum(x, axis=2) for x in values)
    else:
        starts_BM = jnp.diff(segments_BM, axis=1, prepend=-1) != 0

        def add(left, right):
            starts = right[0]
            sums = (jnp.where(starts, b, a + b) for a, b in zip(left[1:], right[1:]))
            return left[0] | starts, *sums

        summed = jax.lax.associative_scan(add, (starts_BM[:, None, :, None], *values), axis=2)
        _, total_BHMK, count_B1M1 = summed
    return total_BHMK / jnp.maximum(count_B1M1, 1)


def relu_weights(logits_BHLM: jax.Array, mask_B1LM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Normalizes ReLU(logits) over the valid keys, before dropout: any positive degree -> 0.

    Padding gets weight 0 by selection, not by adding a large negative number. A row without a
    positive score (a dead row) falls back to uniform weights over its valid keys and sends no
    gradient to its query. No epsilon is added to the row sum, which would break scale invariance.

    Args:
      logits_BHLM: scores before the ReLU.
      mask_B1LM: bool, True for the valid keys of a query; or (B, 1, 1, M), the same for all
        queries.

    Returns:
      weights_BHLM in the dtype of the logits, rows summing to 1, and dead_BHL1 (bool).
    """
    scores_BHLM = jnp.where(mask_B1LM, jax.nn.relu(logits_BHLM.astype(jnp.float32)), 0.0)
    total_BHL1 = scores_BHLM.sum(axis=-1, keepdims=True)
    dead_BHL1 = total_BHL1 <= 0
    num_keys_B1L1 = mask_B1LM.sum(axis=-1, keepdims=True, dtype=jnp.float32)
    uniform_B1LM = mask_B1LM.astype(jnp.float32) / jnp.maximum(num_keys_B1L1, 1)
    weights_BHLM = jnp.where(
        dead_BHL1, uniform_B1LM, scores_BHLM / jnp.where(dead_BHL1, 1.0, total_BHL1)
    )
    return weights_BHLM.astype(logits_BHLM.dtype), dead_BHL1
