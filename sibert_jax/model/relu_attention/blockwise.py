"""A block of query rows at a time: memory O(length × block) in both passes, on any backend.

The forward pass saves no score, only the output and the row sums; the backward pass computes the
scores of a block again and adds up dk and dv over the blocks.
"""

import jax
import jax.numpy as jnp

from sibert_jax.model.relu_attention import einsum

BLOCK = 128  # query rows


@jax.custom_vjp
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    """As `einsum.attend`."""

    def block(args):
        return einsum.attend_rows(args[0], k_BHMK, v_BHMK, args[1], key_ids_BM)[:2]

    out, total = jax.lax.map(block, (_split(q_BHLK, 2), _split(query_ids_BL, 1)))
    length = q_BHLK.shape[2]
    return _join(out, 2, length), _join(total, 2, length)


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM):
    found = attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)
    return found, (q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, *found)


def _backward(saved, cotangents):
    q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, out_BHLK, total_BHL = saved

    def block(carry, args):
        q, query_ids, d_out, out, total = args
        r = einsum.positive_scores(q, k_BHMK, query_ids, key_ids_BM)
        g, d = einsum.row_terms(d_out, out, total)
        dq, dk, dv = einsum.gradients(q, k_BHMK, v_BHMK, r, g, d)
        return (carry[0] + dk, carry[1] + dv), dq.astype(q.dtype)

    zeros = jnp.zeros_like(k_BHMK, einsum.accumulator(k_BHMK.dtype))
    blocks = (
        _split(q_BHLK, 2),
        _split(query_ids_BL, 1),
        *(_split(x, 2) for x in (cotangents[0], out_BHLK, total_BHL)),
    )
    (dk, dv), dq = jax.lax.scan(block, (zeros, jnp.zeros_like(zeros)), blocks)
    dq_BHLK = _join(dq, 2, q_BHLK.shape[2])
    return dq_BHLK, dk.astype(k_BHMK.dtype), dv.astype(v_BHMK.dtype), None, None


attend.defvjp(_forward, _backward)


def _split(x: jax.Array, axis: int) -> jax.Array:
    """Cuts an axis into blocks that lead; rows of zeros fill the last: their scores are 0."""
    length = x.shape[axis]
    block = min(BLOCK, length)
    padding = [(0, -length % block if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, padding)
    shape = (*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _join(x: jax.Array, axis: int, length: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape((*x.shape[:axis], -1, *x.shape[axis + 2 :]))
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)
