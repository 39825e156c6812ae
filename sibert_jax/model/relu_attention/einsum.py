"""All rows at once: the fastest form at the lengths of BERT; keeps one L×M array for each head."""

import jax

from sibert_jax.model.relu_attention import rows


@jax.custom_vjp
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    """Returns out_BHLK, 0 on dead rows, and the row sums z_BHL; the latter take no gradient."""
    return rows.attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)[:2]


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    out_BHLK, total_BHL, r_BHLM = rows.attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)
    return (out_BHLK, total_BHL), (q_BHLK, k_BHMK, v_BHMK, r_BHLM, out_BHLK, total_BHL)


def _backward(saved, cotangents):
    q_BHLK, k_BHMK, v_BHMK, r_BHLM, out_BHLK, total_BHL = saved
    g_BHLK, d_BHL = rows.row_terms(cotangents[0], out_BHLK, total_BHL)
    grads = rows.gradients(q_BHLK, k_BHMK, v_BHMK, r_BHLM, g_BHLK, d_BHL)
    dq, dk, dv = (d.astype(x.dtype) for d, x in zip(grads, (q_BHLK, k_BHMK, v_BHMK)))
    return dq, dk, dv, None, None


attend.defvjp(_forward, _backward)
