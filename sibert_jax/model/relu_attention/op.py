"""The operation: layout, masks, choice of a form, and dead rows, alike for every form."""

import jax
import jax.numpy as jnp

from sibert_jax.model.relu_attention import blockwise, einsum
from sibert_jax.model.relu_attention.dead_rows import mean_value, mean_value_of_segment
from sibert_jax.model.sharding import shard_map


def _pallas(*arrays):
    if jax.default_backend() == "gpu":  # experimental in JAX: imported only if asked for
        from sibert_jax.model.relu_attention import pallas_gpu as kernels
    else:
        from sibert_jax.model.relu_attention import pallas_tpu as kernels

    # XLA cannot split a kernel over devices.
    letters = ("BHLK", "BHMK", "BHMK", "BL", "BM"), ("BHLK", "BHL")
    return shard_map(kernels.attend, *letters)(*arrays)


FORMS = {"einsum": einsum.attend, "blockwise": blockwise.attend, "pallas": _pallas}
IMPLS = ("auto", *FORMS)
LONG = 1024  # tokens from which "auto" no longer keeps L×M arrays


def choose(impl: str, length: int) -> str:
    """The form that computes: "auto" is "einsum" for fewer than 1,024 tokens, else "blockwise"."""
    if impl == "auto":
        return "blockwise" if length >= LONG else "einsum"
    return impl


def relu_attention(
    q_BLHK: jax.Array,
    k_BLHK: jax.Array,
    v_BLHK: jax.Array,
    valid_BL: jax.Array,
    segments_BL: jax.Array | None = None,
    *,
    impl: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Self-attention with weights ReLU(q·k) / Σ ReLU(q·k): N(ReLU(QKᵀ))V of Li et al. 2022, Fig. 7.

    Degree 0 in q and in k, 1 in v: no factor 1/√K is needed, as a constant cancels. A row without
    a positive score, a dead row, gives the mean over its valid keys, or 0 if there is none, and
    sends no gradient to q and k. Products and sums accumulate in float32.

    Args:
      q_BLHK: queries, float32 or bfloat16.
      k_BLHK: keys.
      v_BLHK: values.
      valid_BL: bool, False on padding: no row attends to it.
      segments_BL: int in [0, L), for several texts in one sequence: a row attends only to keys of
        its own number. None: all are one.
      impl: one of IMPLS; "pallas" on TPUs and NVIDIA GPUs only.

    Returns:
      out_BLHK in the dtype of v, and the dead rows (B, H, L, 1), bool.

    Raises:
      ValueError: `impl` is unknown.

    Example:
      >>> out_BLHK, dead_BHL1 = relu_attention(q_BLHK, k_BLHK, v_BLHK, valid_BL)
    """
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is unknown; choose one of {list(IMPLS)}.")
    query_ids_BL = jnp.zeros(valid_BL.shape, jnp.int32) if segments_BL is None else segments_BL
    key_ids_BL = jnp.where(valid_BL, query_ids_BL, -1)
    q_BHLK, k_BHLK, v_BHLK = (jnp.swapaxes(x, 1, 2) for x in (q_BLHK, k_BLHK, v_BLHK))
    attend = FORMS[choose(impl, q_BLHK.shape[1])]
    out_BHLK, total_BHL = attend(q_BHLK, k_BHLK, v_BHLK, query_ids_BL, key_ids_BL)
    dead_BHL1 = total_BHL[..., None] <= 0
    if segments_BL is None:
        mean_BHLK = mean_value(v_BHLK, valid_BL)
    else:
        mean_BHLK = mean_value_of_segment(v_BHLK, valid_BL, segments_BL)
    out_BHLK = jnp.where(dead_BHL1, mean_BHLK.astype(v_BHLK.dtype), out_BHLK)
    return jnp.swapaxes(out_BHLK, 1, 2), dead_BHL1
