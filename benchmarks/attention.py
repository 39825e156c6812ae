"""Forward and backward pass of ReLU attention by each form, and of JAX's softmax attention."""

import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from benchmarks import measuring
from sibert_jax.model import relu_attention

LENGTHS = (128, 512, 2048, 8192)
EINSUM, BLOCKWISE, SOFTMAX = "ReLU, einsum", "ReLU, blockwise", "jax.nn.dot_product_attention"
CAUSAL = "ReLU, blockwise, causal"
KERNELS, CUDNN = "ReLU, kernels", "cuDNN's flash attention"
MEMORY = "temporary MiB"


def _softmax(q_BLHK, k_BLHK, v_BLHK, mask_BL, implementation: str = "xla"):
    mask_B11M = mask_BL[:, None, None]
    return jax.nn.dot_product_attention(
        q_BLHK, k_BLHK, v_BLHK, mask=mask_B11M, implementation=implementation
    )


def _relu(impl: str, causal: bool = False) -> Callable:
    return lambda *args: relu_attention(*args, impl=impl, causal=causal)[0]


def contestants(platform: str) -> dict[str, Callable]:
    """The implementations for "cpu", "gpu" or "tpu"."""
    found = {EINSUM: _relu("einsum"), BLOCKWISE: _relu("blockwise"), SOFTMAX: _softmax}
    found[CAUSAL] = _relu("blockwise", causal=True)
    if platform in ("gpu", "tpu"):
        found[KERNELS] = _relu("pallas")
    if platform == "gpu":
        found[CUDNN] = functools.partial(_softmax, implementation="cudnn")
    return found


def measure(
    lengths: Sequence[int] = LENGTHS,
    *,
    num_tokens: int = 8192,
    repeats: int = 3,
) -> measuring.Result:
    """Tokens/s of the output and the gradients of q, k and v.

    Two heads of 64 in float32 on a CPU; on others twelve, as BERT-base has, in bfloat16.

    Args:
      lengths: tokens of a sequence, each a group.
      num_tokens: of a batch, whatever the length.
      repeats: of each.
    """
    platform = jax.default_backend()
    num_heads, dtype = (2, jnp.float32) if platform == "cpu" else (12, jnp.bfloat16)
    rows = []
    for length in lengths:
        shape = (3, max(1, num_tokens // length), length, num_heads, 64)
        inputs = jax.random.normal(jax.random.key(0), shape, dtype)
        forms = contestants(platform)
        steps = {name: _compiled(attend, inputs) for name, attend in forms.items()}
        timed = {name: _timer(step, inputs) for name, step in steps.items()}
        more = {
            name: {MEMORY: step.memory_analysis().temp_size_in_bytes / 2**20}
            for name, step in steps.items()
        }
        values = measuring.in_turn(timed, repeats)
        rows += measuring.rows(values, EINSUM, f"length {length:,}", more)
    return measuring.Result(
        title=f"Attention, forward and backward, {num_heads} heads of 64, {num_tokens:,} tokens, "
        f"{dtype.__name__}",
        unit="tokens/s",
        more_is_better=True,
        baseline=EINSUM,
        rows=rows,
        notes=[],
    )


def _compiled(attend: Callable, inputs: jax.Array) -> jax.stages.Compiled:
    mask_BL = jnp.ones(inputs.shape[1:3], bool)

    @jax.jit
    def step(inputs):
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, mask_BL), *inputs)
        return out, back(out)

    return step.lower(inputs).compile()


def _timer(step: jax.stages.Compiled, inputs: jax.Array) -> Callable[[], float]:
    jax.block_until_ready(step(inputs))

    def timed() -> float:
        since = time.perf_counter()
        jax.block_until_ready(step(inputs))
        return inputs.shape[1] * inputs.shape[2] / (time.perf_counter() - since)

    return timed
