"""The plain form, all rows at once: fastest at BERT's lengths; stores one L×M array per head.

Its functions on rows against all keys are shared by all forms.

With r = ReLU(q·kᵀ) where query and key have the same id (and, if causal, the key is not later), 0
elsewhere, and z_i = Σ_j r_ij:

    out_i = Σ_j r_ij v_j / z_i      g_i = dO_i / z_i      D_i = g_i·out_i
    ds_ij = (g_i·v_j − D_i)·1[r_ij > 0]
    dq = ds k      dk = dsᵀ q      dv = rᵀ g

Rows with z = 0 give 0 here and get no gradient. Products accumulate in at least float32.
"""

import functools

import jax
import jax.numpy as jnp


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Returns float32, or float64 for float64."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def product(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum whose result has the dtype of the accumulator."""
    return jnp.einsum(letters, a, b, preferred_element_type=accumulator(b.dtype))


def causal_mask(num_queries: int, num_keys: int, offset) -> jax.Array:
    """Returns a bool (L, M) mask, True where the key is not later than the query.

    Args:
      num_queries, num_keys: L and M.
      offset: the position of query 0 minus that of key 0.
    """
    shape = (num_queries, num_keys)
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    return key <= query + offset


def positive_scores(q_BHLK, k_BHMK, query_ids_BL, key_ids_BM, offset=None) -> jax.Array:
    """r_BHLM: ReLU(q·kᵀ) where the ids agree; causal if given the `offset` of `causal_mask`."""
    seen_BHLM = query_ids_BL[:, None, :, None] == key_ids_BM[:, None, None, :]
    if offset is not None:
        seen_BHLM &= causal_mask(q_BHLK.shape[2], k_BHMK.shape[2], offset)[None, None]
    return jnp.where(seen_BHLM, jax.nn.relu(product("BHLK,BHMK->BHLM", q_BHLK, k_BHMK)), 0.0)


def divide(numerator_BHLK: jax.Array, total_BHL: jax.Array) -> jax.Array:
    """numerator / total, and 0 where the total is 0."""
    dead_BHL1 = total_BHL[..., None] <= 0
    return jnp.where(
        dead_BHL1, 0.0, numerator_BHLK / jnp.where(dead_BHL1, 1.0, total_BHL[..., None])
    )


def weighted_values(r_BHLM, v_BHMK) -> tuple[jax.Array, jax.Array]:
    """Returns Σ_j r_ij v_j, the numerator of the output, and z_BHL, in the accumulator dtype."""
    weighted_BHLK = product("BHLM,BHMK->BHLK", r_BHLM.astype(v_BHMK.dtype), v_BHMK)
    return weighted_BHLK, r_BHLM.sum(axis=-1)


def row_terms(d_out_BHLK, out_BHLK, total_BHL) -> tuple[jax.Array, jax.Array]:
    """Returns g_BHLK and D_BHL of the formulas above."""
    dtype = accumulator(out_BHLK.dtype)
    g_BHLK = divide(d_out_BHLK.astype(dtype), total_BHL)
    return g_BHLK, jnp.sum(g_BHLK * out_BHLK.astype(dtype), axis=-1)


def gradients(q_BHLK, k_BHMK, v_BHMK, r_BHLM, g_BHLK, d_BHL):
    """Returns dq_BHLK and these rows' share of dk_BHMK and dv_BHMK, in the accumulator dtype."""
    g_BHLK = g_BHLK.astype(v_BHMK.dtype)
    dr_BHLM = product("BHLK,BHMK->BHLM", g_BHLK, v_BHMK) - d_BHL[..., None]
    ds_BHLM = jnp.where(r_BHLM > 0, dr_BHLM, 0.0).astype(q_BHLK.dtype)
    dq_BHLK = product("BHLM,BHMK->BHLK", ds_BHLM, k_BHMK)
    dk_BHMK = product("BHLM,BHLK->BHMK", ds_BHLM, q_BHLK)
    dv_BHMK = product("BHLM,BHLK->BHMK", r_BHLM.astype(v_BHMK.dtype), g_BHLK)
    return dq_BHLK, dk_BHMK, dv_BHMK


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal):
    """Returns out_BHLK, 0 on dead rows, and the row sums z_BHL, which are not differentiated."""
    return _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal)[0]


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal):
    offset = 0 if causal else None
    r_BHLM = positive_scores(q_BHLK, k_BHMK, query_ids_BL, key_ids_BM, offset)
    weighted_BHLK, total_BHL = weighted_values(r_BHLM, v_BHMK)
    out_BHLK = divide(weighted_BHLK, total_BHL).astype(v_BHMK.dtype)
    saved = (q_BHLK, k_BHMK, v_BHMK, r_BHLM.astype(v_BHMK.dtype), out_BHLK, total_BHL)
    return (out_BHLK, total_BHL), saved


def _backward(causal, saved, cotangents):
    del causal
    q_BHLK, k_BHMK, v_BHMK, r_BHLM, out_BHLK, total_BHL = saved
    g_BHLK, d_BHL = row_terms(cotangents[0], out_BHLK, total_BHL)
    grads = gradients(q_BHLK, k_BHMK, v_BHMK, r_BHLM, g_BHLK, d_BHL)
    dq, dk, dv = (d.astype(x.dtype) for d, x in zip(grads, (q_BHLK, k_BHMK, v_BHMK)))
    return dq, dk, dv, None, None


attend.defvjp(_forward, _backward)
