"""Losses shared by tasks, and the cross-entropy of a large output table."""

import functools

import jax
import jax.numpy as jnp

from sibert_jax.model import constrain


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns −log softmax(logits)[label], (...), for logits (..., V) float32, labels (...) int."""
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - label_logits


def table_logits(h_TD: jax.Array, table_VD: jax.Array, bias_V: jax.Array) -> jax.Array:
    """Returns features times the rows of an output table, plus a bias: (T, V), float32.

    The product is in the dtype of the features and accumulates in float32.
    """
    table_VD = constrain(table_VD.astype(h_TD.dtype), "VD")
    product_TV = jnp.einsum("TD,VD->TV", h_TD, table_VD, preferred_element_type=jnp.float32)
    return constrain(product_TV, "TV") + bias_V[None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def table_cross_entropy(
    h_BPD: jax.Array,
    table_VD: jax.Array,
    bias_V: jax.Array,
    targets_BP: jax.Array,
    weights_BP: jax.Array,
    num_blocks: int,
) -> jax.Array:
    """Returns Σ weight · cross-entropy over B and P, keeping only one block of logits at a time.

    The positions are processed in `num_blocks` parts. Under differentiation, each part's gradient
    is computed along with its logits: nothing is computed twice, and the residuals for the backward
    pass are as large as the arguments. Reverse mode only, as with any custom VJP.

    Args:
      h_BPD: features of the positions to predict, any float dtype.
      table_VD: output embeddings, float32.
      bias_V: output bias, float32.
      targets_BP: int in [0, V), target tokens.
      weights_BP: float32, 0 on ignored positions.
      num_blocks: number of parts, in [1, P]; P is padded to a multiple of it with weight 0.

    Returns:
      A float32 scalar.
    """

    def block(part):
        h_TD, targets_T, weights_T = part
        losses_T = cross_entropy(table_logits(h_TD, table_VD, bias_V), targets_T)
        return jnp.sum(weights_T * losses_T)

    parts = _split(num_blocks, h_BPD, targets_BP, weights_BP)
    return jax.lax.scan(lambda total, part: (total + block(part), None), jnp.float32(0), parts)[0]


def _forward(h_BPD, table_VD, bias_V, targets_BP, weights_BP, num_blocks):
    num_rows, num_positions = h_BPD.shape[:2]

    def block(carry, part):
        total, table_grad_DV, bias_grad_V = carry
        h_TD, targets_T, weights_T = part
        logits_TV = table_logits(h_TD, table_VD, bias_V)
        log_total_T = jax.nn.logsumexp(logits_TV, axis=-1)
        losses_T = log_total_T - jnp.take_along_axis(logits_TV, targets_T[:, None], axis=1)[:, 0]
        at_target_TV = jnp.arange(logits_TV.shape[-1])[None] == targets_T[:, None]
        # d loss/d logits = weight · (softmax − 1 at the target)
        softmax_TV = jnp.exp(logits_TV - log_total_T[:, None])
        grad_TV = weights_T[:, None] * jnp.where(at_target_TV, softmax_TV - 1, softmax_TV)
        factor_TV = constrain(grad_TV.astype(h_TD.dtype), "TV")  # in the dtype of the products
        # XLA's products on CPUs are twice as fast with the features transposed in memory; the
        # barrier keeps the transpose from being folded into the product.
        h_DT = jax.lax.optimization_barrier(h_TD.T)
        table_grad_DV += jnp.matmul(h_DT, factor_TV, preferred_element_type=jnp.float32)
        h_grad_TD = factor_TV @ table_VD.astype(h_TD.dtype)
        carry = (
            total + jnp.sum(weights_T * losses_T),
            constrain(table_grad_DV, "DV"),
            bias_grad_V + grad_TV.sum(axis=0),
        )
        return carry, (h_grad_TD, losses_T)

    parts = _split(num_blocks, h_BPD, targets_BP, weights_BP)
    zeros = (jnp.float32(0), jnp.zeros_like(table_VD.T), jnp.zeros_like(bias_V))
    (total, table_grad_DV, bias_grad_V), per_row = jax.lax.scan(block, zeros, parts)

    def join(x):  # (blocks, B·P/blocks, ...) -> (B, P, ...)
        x = x.reshape(num_blocks, num_rows, -1, *x.shape[2:])
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(num_rows, -1, *x.shape[3:])[:, :num_positions]

    return total, (join(per_row[0]), table_grad_DV.T, bias_grad_V, join(per_row[1]))


def _backward(num_blocks, residuals, cotangent):
    del num_blocks
    h_grad_BPD, table_grad_VD, bias_grad_V, losses_BP = residuals
    h_grad_BPD = cotangent.astype(h_grad_BPD.dtype) * h_grad_BPD
    return (
        h_grad_BPD,
        cotangent * table_grad_VD,
        cotangent * bias_grad_V,
        None,
        cotangent * losses_BP,
    )


table_cross_entropy.defvjp(_forward, _backward)


def _split(num_blocks: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Maps (B, P, ...) to (blocks, B·P/blocks, ...), split by position as rows may be sharded."""

    def split(x):
        missing = -x.shape[1] % num_blocks
        x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
        x = x.reshape(x.shape[0], num_blocks, -1, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0).reshape(num_blocks, -1, *x.shape[3:])

    return tuple(map(split, arrays))
