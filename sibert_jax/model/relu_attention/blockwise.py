"""One block of query rows at a time: O(length × block) memory in both passes, on any backend.

The forward pass saves only the output and the row sums; the backward pass recomputes the scores of
each block and accumulates dk and dv over the blocks. In the causal case the keys are split into
blocks too, and those later than all rows of a block are skipped.
"""

import functools

import jax
import jax.numpy as jnp

from sibert_jax.model.relu_attention import einsum

BLOCK = 128  # query rows, and keys if causal


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal):
    """As `einsum.attend`."""
    keys = _Keys(k_BHMK, v_BHMK, key_ids_BM, causal)

    def rows(args):
        i, q, query_ids = args

        def add(j, sums):
            k, v, ids = keys.block(j)
            r = einsum.positive_scores(q, k, query_ids, ids, keys.offset(i, j))
            return tuple(map(jnp.add, sums, einsum.weighted_values(r, v)))

        dtype = einsum.accumulator(v_BHMK.dtype)
        zeros = (
            jnp.zeros((*q.shape[:-1], v_BHMK.shape[-1]), dtype),
            jnp.zeros(q.shape[:-1], dtype),
        )
        weighted, total = jax.lax.fori_loop(0, keys.num_blocks(i), add, zeros)
        return einsum.divide(weighted, total).astype(v_BHMK.dtype), total

    q_blocks = _split(q_BHLK, 2)
    blocks = (jnp.arange(len(q_blocks), dtype=jnp.int32), q_blocks, _split(query_ids_BL, 1))
    out, total = jax.lax.map(rows, blocks)
    length = q_BHLK.shape[2]
    return _join(out, 2, length), _join(total, 2, length)


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal):
    found = attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal)
    return found, (q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, *found)


def _backward(causal, saved, cotangents):
    q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, out_BHLK, total_BHL = saved
    keys = _Keys(k_BHMK, v_BHMK, key_ids_BM, causal)

    def rows(carry, args):
        i, q, query_ids, d_out, out, total = args
        g, d = einsum.row_terms(d_out, out, total)

        def add(j, sums):
            dk, dv, dq = sums
            k, v, ids = keys.block(j)
            r = einsum.positive_scores(q, k, query_ids, ids, keys.offset(i, j))
            more_q, more_k, more_v = einsum.gradients(q, k, v, r, g, d)
            return dk.at[j].add(more_k), dv.at[j].add(more_v), dq + more_q

        start = (*carry, jnp.zeros_like(q, dtype))
        dk, dv, dq = jax.lax.fori_loop(0, keys.num_blocks(i), add, start)
        return (dk, dv), dq.astype(q.dtype)

    dtype = einsum.accumulator(k_BHMK.dtype)
    zeros = jnp.zeros_like(keys.k, dtype), jnp.zeros_like(keys.v, dtype)
    q_blocks = _split(q_BHLK, 2)
    blocks = (
        jnp.arange(len(q_blocks), dtype=jnp.int32),
        q_blocks,
        _split(query_ids_BL, 1),
        *(_split(x, 2) for x in (cotangents[0], out_BHLK, total_BHL)),
    )
    (dk, dv), dq = jax.lax.scan(rows, zeros, blocks)
    dq_BHLK = _join(dq, 2, q_BHLK.shape[2])
    dk_BHMK, dv_BHMK = (_join(x, 2, k_BHMK.shape[2]) for x in (dk, dv))
    return dq_BHLK, dk_BHMK.astype(k_BHMK.dtype), dv_BHMK.astype(v_BHMK.dtype), None, None


attend.defvjp(_forward, _backward)


class _Keys:
    """Keys, values and ids in blocks along a leading axis: one, or of BLOCK keys if causal."""

    def __init__(self, k_BHMK, v_BHMK, key_ids_BM, causal: bool):
        size = BLOCK if causal else k_BHMK.shape[2]
        self.k, self.v = _split(k_BHMK, 2, size), _split(v_BHMK, 2, size)
        self._ids, self._causal = _split(key_ids_BM, 1, size), causal

    def block(self, j) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.k[j], self.v[j], self._ids[j]

    def num_blocks(self, i):
        """Number of key blocks that the rows of block i attend to."""
        return i + 1 if self._causal else 1

    def offset(self, i, j):
        """The `offset` of `causal_mask` for row block i and key block j; None if not causal."""
        return (i - j) * BLOCK if self._causal else None


def _split(x: jax.Array, axis: int, block: int | None = None) -> jax.Array:
    """Splits an axis into blocks along a leading axis; the last is zero-padded (scores 0)."""
    length = x.shape[axis]
    block = min(block or BLOCK, length)
    padding = [(0, -length % block if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, padding)
    shape = (*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _join(x: jax.Array, axis: int, length: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape((*x.shape[:axis], -1, *x.shape[axis + 2 :]))
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)
