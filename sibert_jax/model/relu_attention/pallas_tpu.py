"""TPU kernels: the scores of a key block and a query block exist only inside a core.

The formulas are those of einsum.py; only the output and the row sums are saved. Partial sums need
no running maximum, as softmax does. The length is the last axis, in the lanes, and a block of
scores is keys × queries: narrow heads leave no lane empty, and the quantities of a query (its id,
z, D) form a row of lanes, with sums over keys or features across rows.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sibert_jax.model.relu_attention import einsum
from sibert_jax.model.relu_attention.block_spec import block_spec

LANES = 128
LONGEST_BLOCK = 512  # queries or keys, a multiple of LANES: a block of float32 scores takes 1 MB


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attend(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret=False):
    """Like `einsum.attend`, on TPUs only.

    Args:
      interpret: True or a `pltpu.InterpretParams` for interpret mode, slow but on any backend.
    """
    return _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret)[0]


def _forward(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM, causal, interpret):
    saved = (q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM)
    results = [("BHKL", v_BHMK.dtype), ("BH1L", einsum.accumulator(v_BHMK.dtype))]
    out_BHKL, total_BH1L = _sum_over_blocks(
        _outputs, "BHLM", _operands(*saved), results, causal, interpret, finish=_divided
    )
    length = q_BHLK.shape[2]
    out_BHLK, total_BHL = _rows(out_BHKL, length), total_BH1L[:, :, 0, :length]
    return (out_BHLK, total_BHL), (*saved, out_BHLK, total_BHL)


def _backward(causal, interpret, saved, cotangents):
    *inputs, out_BHLK, total_BHL = saved
    q_BHLK, k_BHMK, v_BHMK = inputs[:3]
    operands = [
        *_operands(*inputs),
        ("BHKL", _lanes(out_BHLK)),
        ("BHKL", _lanes(cotangents[0])),
        ("BH1L", _padded(total_BHL[:, :, None])),
    ]
    results = [("BHKL", q_BHLK.dtype)]
    (dq_BHKL,) = _sum_over_blocks(_query_gradients, "BHLM", operands, results, causal, interpret)
    results = [("BHKM", k_BHMK.dtype), ("BHKM", v_BHMK.dtype)]
    dk_BHKM, dv_BHKM = _sum_over_blocks(
        _key_gradients, "BHML", operands, results, causal, interpret
    )
    dq_BHLK = _rows(dq_BHKL, q_BHLK.shape[2])
    dk_BHMK, dv_BHMK = (_rows(x, k_BHMK.shape[2]) for x in (dk_BHKM, dv_BHKM))
    return dq_BHLK, dk_BHMK, dv_BHMK, None, None


attend.defvjp(_forward, _backward)


# The contributions of one block of queries and one of keys; `offset` as in einsum.py.


def _outputs(offset, query_ids_1L, key_ids_M1, q_KL, k_KM, v_KM):
    r_ML = _positive_scores(offset, query_ids_1L, key_ids_M1, q_KL, k_KM)
    out_KL = _product("KM,ML->KL", v_KM, r_ML.astype(v_KM.dtype))
    return out_KL, r_ML.sum(axis=0, keepdims=True)


def _divided(out_KL, total_1L):
    return out_KL * _inverse(total_1L), total_1L


def _query_gradients(
    offset, query_ids_1L, key_ids_M1, q_KL, k_KM, v_KM, out_KL, d_out_KL, total_1L
):
    r_ML = _positive_scores(offset, query_ids_1L, key_ids_M1, q_KL, k_KM)
    ds_ML, _ = _score_gradients(r_ML, v_KM, out_KL, d_out_KL, total_1L)
    return (_product("KM,ML->KL", k_KM, ds_ML.astype(k_KM.dtype)),)


def _key_gradients(offset, query_ids_1L, key_ids_M1, q_KL, k_KM, v_KM, out_KL, d_out_KL, total_1L):
    r_ML = _positive_scores(offset, query_ids_1L, key_ids_M1, q_KL, k_KM)
    ds_ML, g_KL = _score_gradients(r_ML, v_KM, out_KL, d_out_KL, total_1L)
    dk_KM = _product("KL,ML->KM", q_KL, ds_ML.astype(q_KL.dtype))
    return dk_KM, _product("KL,ML->KM", g_KL, r_ML.astype(g_KL.dtype))


def _positive_scores(offset, query_ids_1L, key_ids_M1, q_KL, k_KM):
    s_ML = _product("KM,KL->ML", k_KM, q_KL)
    seen_ML = key_ids_M1 == query_ids_1L
    if offset is not None:
        key, query = (jax.lax.broadcasted_iota(jnp.int32, s_ML.shape, axis) for axis in (0, 1))
        seen_ML &= key <= query + offset
    return jnp.where(seen_ML, jnp.maximum(s_ML, 0.0), 0.0)


def _score_gradients(r_ML, v_KM, out_KL, d_out_KL, total_1L):
    """Returns ds_ML, and g_KL in the dtype of v; both are 0 in dead rows."""
    dtype = einsum.accumulator(v_KM.dtype)
    g_KL = d_out_KL.astype(dtype) * _inverse(total_1L)
    d_1L = jnp.sum(g_KL * out_KL.astype(dtype), axis=0, keepdims=True)
    g_KL = g_KL.astype(v_KM.dtype)
    dr_ML = _product("KM,KL->ML", v_KM, g_KL) - d_1L
    return jnp.where(r_ML > 0, dr_ML, 0.0), g_KL


def _inverse(total_1L):
    """1 / total, and 0 where the total is 0."""
    dead_1L = total_1L <= 0
    return jnp.where(dead_1L, 0.0, 1.0 / jnp.where(dead_1L, 1.0, total_1L))


def _product(letters: str, a, b):
    """A product of two matrices, summed over the letter that is not in the result."""
    left, right, result = letters.replace("->", ",").split(",")
    (summed,) = set(left) - set(result)
    contracted = ((left.index(summed),), (right.index(summed),))
    dtype = einsum.accumulator(b.dtype)
    return jax.lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=dtype)


# From arrays to blocks and back.


def _sum_over_blocks(
    contribution: Callable,
    order: str,
    operands,
    results,
    causal: bool,
    interpret,
    finish=lambda *sums: sums,
) -> list[jax.Array]:
    """Sums over the last axis of the grid in float32.

    Args:
      contribution: maps `offset` and blocks of the operands to summands of the results.
      order: letters of the grid, innermost last; the innermost is summed over.
      operands: (letters, array) pairs; L and M are split into blocks, K is not.
      results: (letters, dtype) pairs.
      causal: whether to skip key blocks that are later than the queries.
      interpret: see `attend`.
      finish: maps the sums to the blocks of the results.
    """
    sizes = {"1": 1} | {
        letter: size for letters, x in operands for letter, size in zip(letters, x.shape)
    }
    blocks = sizes | {"B": None, "H": None} | {letter: _block(sizes[letter]) for letter in "LM"}
    last = len(order) - 1

    def kernel(*refs):
        ends = len(operands), len(operands) + len(results)
        read, write, sums = refs[: ends[0]], refs[ends[0] : ends[1]], refs[ends[1] :]

        @pl.when(pl.program_id(last) == 0)
        def _():
            for total in sums:
                total[...] = jnp.zeros_like(total)

        def add(offset):
            for total, part in zip(sums, contribution(offset, *(ref[...] for ref in read))):
                total[...] += part

        if causal:
            query, key = (pl.program_id(order.index(letter)) for letter in "LM")
            offset = query * blocks["L"] - key * blocks["M"]
            pl.when(offset > -blocks["L"])(lambda: add(offset))
        else:
            add(None)

        @pl.when(pl.program_id(last) == pl.num_programs(last) - 1)
        def _():
            for out, total in zip(write, finish(*(total[...] for total in sums))):
                out[...] = total.astype(out.dtype)

    return pl.pallas_call(
        kernel,
        grid=tuple(sizes[letter] // (blocks[letter] or 1) for letter in order),
        in_specs=[block_spec(letters, blocks, order) for letters, _ in operands],
        out_specs=[block_spec(letters, blocks, order) for letters, _ in results],
        out_shape=[
            jax.ShapeDtypeStruct([sizes[letter] for letter in letters], dtype)
            for letters, dtype in results
        ],
        scratch_shapes=[
            pltpu.VMEM([blocks[letter] for letter in letters[2:]], einsum.accumulator(dtype))
            for letters, dtype in results
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * last + ("arbitrary",)
        ),
        name=f"relu_attention{contribution.__name__}",
        interpret=interpret,
    )(*(x for _, x in operands))


def _operands(q_BHLK, k_BHMK, v_BHMK, query_ids_BL, key_ids_BM) -> list[tuple[str, jax.Array]]:
    """The operands in the order of `contribution`; padded keys get an id that no query has."""
    return [
        ("B1L", _padded(query_ids_BL[:, None])),
        ("BM1", jnp.swapaxes(_padded(key_ids_BM[:, None], -1), 1, 2)),
        ("BHKL", _lanes(q_BHLK)),
        ("BHKM", _lanes(k_BHMK)),
        ("BHKM", _lanes(v_BHMK)),
    ]


def _block(length: int) -> int:
    """The smallest multiple of LANES that covers the length in the fewest blocks."""
    num_blocks = -(-length // LONGEST_BLOCK)
    return -(-length // (num_blocks * LANES)) * LANES


def _padded(x: jax.Array, value=0) -> jax.Array:
    """Pads the last axis to whole blocks."""
    missing = -x.shape[-1] % _block(x.shape[-1])
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=value)


def _lanes(x_BHLK: jax.Array) -> jax.Array:
    return _padded(jnp.swapaxes(x_BHLK, 2, 3))


def _rows(x_BHKL: jax.Array, length: int) -> jax.Array:
    return jnp.swapaxes(x_BHKL[..., :length], 2, 3)
