"""Triton kernels for NVIDIA GPUs: blocks of scores exist only in registers.

The formulas are those of einsum.py; only the output and the row sums are saved. A program keeps one
block and loops over the blocks of the other kind: a query block over the keys for the output and
dq, a key block over the queries for dk and dv. So no two programs write to the same location, and
partial sums need no rescaling by a running maximum, as softmax does.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from sibert_jax.model.relu_attention import einsum
from sibert_jax.model.relu_attention.block_spec import block_spec

BLOCK = 64  # queries or keys, a power of two
LEAST = 16  # minimum number of features: the smallest tile of tensor cores


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret=False):
    """Like `einsum.attend`, on NVIDIA GPUs only.

    Args:
      interpret: run the kernels in interpret mode, slow but on any backend.
    """
    return _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret)[0]


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret):
    saved = (q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)
    results = [("BHLK", v_BHMK.dtype), ("BHL", einsum.accumulator(v_BHMK.dtype))]
    out_BHLK, total_BHL = _sum_over_blocks(
        _outputs, "M", _operands(*saved), results, causal, interpret, finish=_divided
    )
    _, _, length, width = q_BHLK.shape
    out_BHLK, total_BHL = out_BHLK[:, :, :length, :width], total_BHL[:, :, :length]
    return (out_BHLK, total_BHL), (*saved, out_BHLK, total_BHL)


def _backward(causal, interpret, saved, cotangents):
    *inputs, out_BHLK, total_BHL = saved
    q_BHLK, k_BHMK, v_BHMK = inputs[:3]
    g_BHLK, d_BHL = einsum.row_terms(cotangents[0], out_BHLK, total_BHL)
    operands = [
        *_operands(*inputs),
        ("BHLK", _padded(g_BHLK.astype(v_BHMK.dtype))),
        ("BHL", _padded(d_BHL[..., None])[..., 0]),
    ]
    (dq_BHLK,) = _sum_over_blocks(
        _query_gradients, "M", operands, [("BHLK", q_BHLK.dtype)], causal, interpret
    )
    results = [("BHMK", k_BHMK.dtype), ("BHMK", v_BHMK.dtype)]
    dk_BHMK, dv_BHMK = _sum_over_blocks(_key_gradients, "L", operands, results, causal, interpret)
    gradients = zip((dq_BHLK, dk_BHMK, dv_BHMK), inputs)
    return *(d[:, :, : x.shape[2], : x.shape[3]] for d, x in gradients), None, None


attend.defvjp(_forward, _backward)


# The contributions of one block of queries and one of keys; `offset` as in einsum.py.


def _outputs(offset, query_ids_L, key_ids_M, q_LK, k_MK, v_MK):
    r_LM = _positive_scores(offset, query_ids_L, key_ids_M, q_LK, k_MK)
    return einsum.product("LM,MK->LK", r_LM.astype(v_MK.dtype), v_MK), r_LM.sum(axis=1)


def _divided(out_LK, total_L):
    return einsum.divide(out_LK, total_L), total_L


def _query_gradients(offset, query_ids_L, key_ids_M, q_LK, k_MK, v_MK, g_LK, d_L):
    r_LM = _positive_scores(offset, query_ids_L, key_ids_M, q_LK, k_MK)
    return (einsum.product("LM,MK->LK", _score_gradients(r_LM, v_MK, g_LK, d_L), k_MK),)


def _key_gradients(offset, query_ids_L, key_ids_M, q_LK, k_MK, v_MK, g_LK, d_L):
    r_LM = _positive_scores(offset, query_ids_L, key_ids_M, q_LK, k_MK)
    dk_MK = einsum.product("LM,LK->MK", _score_gradients(r_LM, v_MK, g_LK, d_L), q_LK)
    return dk_MK, einsum.product("LM,LK->MK", r_LM.astype(g_LK.dtype), g_LK)


def _positive_scores(offset, query_ids_L, key_ids_M, q_LK, k_MK):
    s_LM = einsum.product("LK,MK->LM", q_LK, k_MK)
    seen_LM = query_ids_L[:, None] == key_ids_M[None, :]
    if offset is not None:
        seen_LM &= einsum.causal_mask(*s_LM.shape, offset)
    return jnp.where(seen_LM, jnp.maximum(s_LM, 0.0), 0.0)


def _score_gradients(r_LM, v_MK, g_LK, d_L):
    """ds_LM in the dtype of v; g and D are 0 in dead rows."""
    dr_LM = einsum.product("LK,MK->LM", g_LK, v_MK) - d_L[:, None]
    return jnp.where(r_LM > 0, dr_LM, 0.0).astype(v_MK.dtype)


# From arrays to blocks and back.


def _sum_over_blocks(
    contribution: Callable,
    summed: str,
    operands,
    results,
    causal: bool,
    interpret,
    finish=lambda *sums: sums,
) -> list[jax.Array]:
    """Sums over the blocks of L or of M; the grid runs over those of the other.

    Args:
      contribution: maps `offset` and blocks of the operands to float32 summands of the results.
      summed: "L" or "M", the dimension to sum over.
      operands: (letters, array) pairs; each has L or M, which is split into blocks; K is not.
      results: (letters, dtype) pairs.
      causal: whether to skip key blocks that are later than the queries.
      interpret: see `attend`.
      finish: maps the sums to the blocks of the results.
    """
    sizes = {letter: size for letters, x in operands for letter, size in zip(letters, x.shape)}
    kept = "LM".replace(summed, "")
    order = "BH" + kept
    blocks = sizes | {"B": None, "H": None, kept: BLOCK}

    def kernel(*refs):
        read, write = refs[: len(operands)], refs[len(operands) :]
        own = pl.program_id(len(order) - 1)
        held = {i: ref[...] for i, ref in enumerate(read) if kept in operands[i][0]}

        def add(block, sums):
            here = pl.ds(block * BLOCK, BLOCK)
            offset = None
            if causal:
                offset = (own - block if kept == "L" else block - own) * BLOCK
            parts = contribution(
                offset, *(held.get(i, ref.at[here])[...] for i, ref in enumerate(read))
            )
            return tuple(total + part for total, part in zip(sums, parts))

        zeros = tuple(
            jnp.zeros(ref.shape, einsum.accumulator(dtype))
            for ref, (_, dtype) in zip(write, results)
        )
        first, end = 0, sizes[summed] // BLOCK
        if causal:  # keys up to the query block, queries from the key block on
            first, end = (0, own + 1) if kept == "L" else (own, end)
        sums = jax.lax.fori_loop(first, end, add, zeros)
        for ref, total in zip(write, finish(*sums)):
            ref[...] = total.astype(ref.dtype)

    return pl.pallas_call(
        kernel,
        grid=tuple(sizes[letter] // (blocks[letter] or 1) for letter in order),
        in_specs=[block_spec(letters, blocks, order) for letters, _ in operands],
        out_specs=[block_spec(letters, blocks, order) for letters, _ in results],
        out_shape=[
            jax.ShapeDtypeStruct([sizes[letter] for letter in letters], dtype)
            for letters, dtype in results
        ],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        name=f"relu_attention{contribution.__name__}",
        interpret=interpret,
    )(*(x for _, x in operands))


def _operands(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM) -> list[tuple[str, jax.Array]]:
    """The operands in the order of `contribution`; padded keys get an id that no query has."""
    missing = -key_ids_BM.shape[1] % BLOCK
    return [
        ("BL", jnp.pad(query_ids_BL, ((0, 0), (0, missing)))),
        ("BM", jnp.pad(key_ids_BM, ((0, 0), (0, missing)), constant_values=-1)),
        ("BHLK", _padded(q_BHLK)),
        ("BHMK", _padded(k_BHMK)),
        ("BHMK", _padded(v_BHMK)),
    ]


def _padded(x_BHLK: jax.Array) -> jax.Array:
    """Zero-pads to whole blocks of rows and, as Triton requires, a power of two of features."""
    length, width = x_BHLK.shape[2:]
    features = max(LEAST, pl.next_power_of_2(width))
    return jnp.pad(x_BHLK, ((0, 0), (0, 0), (0, -length % BLOCK), (0, features - width)))
