"""Forward and backward pass of ReLU attention by each form, and of JAX's softmax attention."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from benchmarks import measuring
from sibert_jax.model import relu_attention

LENGTHS = (128, 512, 2048, 8192)
EINSUM, BLOCKWISE, SOFTMAX = "ReLU, einsum", "ReLU, blockwise", "jax.nn.dot_product_attention"
MEMORY = "temporary MiB"


def _softmax(q_BLHK, k_BLHK, v_BLHK, valid_BL):
    return jax.nn.dot_product_attention(q_BLHK, k_BLHK, v_BLHK, mask=valid_BL[:, None, None])


def _relu(impl: str) -> Callable:
    return lambda *args: relu_attention(*args, impl=impl)[0]


CONTESTANTS = {EINSUM: _relu("einsum"), BLOCKWISE: _relu("blockwise"), SOFTMAX: _softmax}


def measure(
    lengths: Sequence[int] = LENGTHS,
    *,
    num_tokens: int = 8192,
    num_heads: int = 2,
    repeats: int = 3,
) -> measuring.Result:
    """Tokens/s of the output and the gradients of q, k and v, in float32, heads of 64.

    Args:
      lengths: tokens of a sequence, each a group.
      num_tokens: of a batch, whatever the length.
      num_heads: H.
      repeats: of each.
    """
    rows = []
    for length in lengths:
        shape = (3, max(1, num_tokens // length), length, num_heads, 64)
        inputs = jax.random.normal(jax.random.key(0), shape)
        steps = {name: _compiled(attend, inputs) for name, attend in CONTESTANTS.items()}
        timed = {name: _timer(step, inputs) for name, step in steps.items()}
        more = {
            name: {MEMORY: step.memory_analysis().temp_size_in_bytes / 2**20}
            for name, step in steps.items()
        }
        values = measuring.in_turn(timed, repeats)
        rows += measuring.rows(values, EINSUM, f"length {length:,}", more)
    return measuring.Result(
        title=f"Attention, forward and backward, {num_heads} heads of 64, {num_tokens:,} tokens",
        unit="tokens/s",
        more_is_better=True,
        baseline=EINSUM,
        rows=rows,
        notes=[],
    )


def _compiled(attend: Callable, inputs: jax.Array) -> jax.stages.Compiled:
    valid_BL = jnp.ones(inputs.shape[1:3], bool)

    @jax.jit
    def step(inputs):
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, valid_BL), *inputs)
        return out, back(out)

    return step.lower(inputs).compile()


def _timer(step: jax.stages.Compiled, inputs: jax.Array) -> Callable[[], float]:
    jax.block_until_ready(step(inputs))

    def timed() -> float:
        since = time.perf_counter()
        jax.block_until_ready(step(inputs))
        return inputs.shape[1] * inputs.shape[2] / (time.perf_counter() - since)

    return timed
