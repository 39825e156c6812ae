"""The plain form, all rows at once: the fastest at the lengths of BERT; keeps one L×M array a head.

Its computations on rows against all keys are those of every form.

With r = ReLU(q·kᵀ) where query and key have the same id and 0 elsewhere, and z = Σ_j r_ij:

    out_i = Σ_j r_ij v_j / z_i      g_i = dO_i / z_i      D_i = g_i·out_i
    ds_ij = (g_i·v_j − D_i)·1[r_ij > 0]
    dq = ds k      dk = dsᵀ q      dv = rᵀ g

Rows with z = 0 give 0 here and send no gradient. Products accumulate in float32 at least.
"""

import jax
import jax.numpy as jnp


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """float32, or float64 for float64."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def product(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum whose result has the dtype of the accumulator."""
    return jnp.einsum(letters, a, b, preferred_element_type=accumulator(b.dtype))


def positive_scores(q_BHLK, k_BHMK, query_ids_BL, key_ids_BM) -> jax.Array:
    """r_BHLM: ReLU(q·kᵀ) where the ids agree."""
    same_B1LM = query_ids_BL[:, None, :, None] == key_ids_BM[:, None, None, :]
    return jnp.where(same_B1LM, jax.nn.relu(product("BHLK,BHMK->BHLM", q_BHLK, k_BHMK)), 0.0)


def divide(numerator_BHLK: jax.Array, total_BHL: jax.Array) -> jax.Array:
    """numerator / total, and 0 where the total is 0."""
    dead_BHL1 = total_BHL[..., None] <= 0
    return jnp.where(
        dead_BHL1, 0.0, numerator_BHLK / jnp.where(dead_BHL1, 1.0, total_BHL[..., None])
    )


def attend_rows(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    """Returns out_BHLK in the dtype of v, z_BHL and r_BHLM in the dtype of v."""
    r_BHLM = positive_scores(q_BHLK, k_BHMK, query_ids_BL, key_ids_BM)
    total_BHL = r_BHLM.sum(axis=-1)
    r_BHLM = r_BHLM.astype(v_BHMK.dtype)
    out_BHLK = divide(product("BHLM,BHMK->BHLK", r_BHLM, v_BHMK), total_BHL)
    return out_BHLK.astype(v_BHMK.dtype), total_BHL, r_BHLM


def row_terms(d_out_BHLK, out_BHLK, total_BHL) -> tuple[jax.Array, jax.Array]:
    """g_BHLK and D_BHL of the formulas above."""
    dtype = accumulator(out_BHLK.dtype)
    g_BHLK = divide(d_out_BHLK.astype(dtype), total_BHL)
    return g_BHLK, jnp.sum(g_BHLK * out_BHLK.astype(dtype), axis=-1)


def gradients(q_BHLK, k_BHMK, v_BHMK, r_BHLM, g_BHLK, d_BHL):
    """dq_BHLK, and what these rows add to dk_BHMK and dv_BHMK; dtype of the accumulator."""
    g_BHLK = g_BHLK.astype(v_BHMK.dtype)
    dr_BHLM = product("BHLK,BHMK->BHLM", g_BHLK, v_BHMK) - d_BHL[..., None]
    ds_BHLM = jnp.where(r_BHLM > 0, dr_BHLM, 0.0).astype(q_BHLK.dtype)
    dq_BHLK = product("BHLM,BHMK->BHLK", ds_BHLM, k_BHMK)
    dk_BHMK = product("BHLM,BHLK->BHMK", ds_BHLM, q_BHLK)
    dv_BHMK = product("BHLM,BHLK->BHMK", r_BHLM.astype(v_BHMK.dtype), g_BHLK)
    return dq_BHLK, dk_BHMK, dv_BHMK


@jax.custom_vjp
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    """Returns out_BHLK, 0 on dead rows, and the row sums z_BHL; the latter take no gradient."""
    return attend_rows(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)[:2]


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    out_BHLK, total_BHL, r_BHLM = attend_rows(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)
    return (out_BHLK, total_BHL), (q_BHLK, k_BHMK, v_BHMK, r_BHLM, out_BHLK, total_BHL)


def _backward(saved, cotangents):
    q_BHLK, k_BHMK, v_BHMK, r_BHLM, out_BHLK, total_BHL = saved
    g_BHLK, d_BHL = row_terms(cotangents[0], out_BHLK, total_BHL)
    grads = gradients(q_BHLK, k_BHMK, v_BHMK, r_BHLM, g_BHLK, d_BHL)
    dq, dk, dv = (d.astype(x.dtype) for d, x in zip(grads, (q_BHLK, k_BHMK, v_BHMK)))
    return dq, dk, dv, None, None


attend.defvjp(_forward, _backward)
