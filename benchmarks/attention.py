"""Forward and backward pass of ReLU attention by each form, and of JAX's softmax attention."""

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
FLASH = "JAX's flash attention for TPUs"
MEMORY = "temporary MiB"


def _softmax(q_BLHK, k_BLHK, v_BLHK, mask_BL):
    return jax.nn.dot_product_attention(q_BLHK, k_BLHK, v_BLHK, mask=mask_BL[:, None, None])


def _cudnn(q_BLHK, k_BLHK, v_BLHK, mask_BL):
    # It takes lengths, or a mask with a row for each query.
    lengths_B = jnp.sum(mask_BL, axis=1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(
        q_BLHK, k_BLHK, v_BLHK, key_value_seq_lengths=lengths_B, implementation="cudnn"
    )


def _flash(q_BLHK, k_BLHK, v_BLHK, mask_BL):
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    segments = flash.SegmentIds(jnp.ones(mask_BL.shape, jnp.int32), mask_BL.astype(jnp.int32))
    q_BHLK, k_BHLK, v_BHLK = (jnp.swapaxes(x, 1, 2) for x in (q_BLHK, k_BLHK, v_BLHK))
    scale = q_BLHK.shape[-1] ** -0.5
    out_BHLK = flash.flash_attention(q_BHLK, k_BHLK, v_BHLK, None, segments, sm_scale=scale)
    return jnp.swapaxes(out_BHLK, 1, 2)


def relu(impl: str, causal: bool = False) -> Callable:
    """ReLU attention by one form, as a function of q, k, v and mask_BL."""
    return lambda *args: relu_attention(*args, impl=impl, causal=causal)[0]


def contestants(platform: str) -> dict[str, Callable]:
    """The implementations for "cpu", "gpu" or "tpu"."""
    found = {EINSUM: relu("einsum"), BLOCKWISE: relu("blockwise"), SOFTMAX: _softmax}
    found[CAUSAL] = relu("blockwise", causal=True)
    if platform in ("gpu", "tpu"):
        found[KERNELS] = relu("pallas")
    if platform == "gpu":
        found[CUDNN] = _cudnn
    if platform == "tpu":
        found[FLASH] = _flash
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
        steps = {name: compiled(attend, inputs) for name, attend in forms.items()}
        timed = {name: timer(step, inputs) for name, step in steps.items()}
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


def compiled(
    attend: Callable, inputs: jax.Array, mask_BL: jax.Array | None = None
) -> jax.stages.Compiled:
    """Compiles the output of `attend` and its gradients for the output as its own cotangent.

    Args:
      attend: a function of q, k, v and mask_BL.
      inputs: q, k and v, (3, B, L, H, K).
      mask_BL: bool, False on padding; None: no padding.

    Returns:
      A function of the inputs that returns out_BLHK and (dq, dk, dv).
    """
    if mask_BL is None:
        mask_BL = jnp.ones(inputs.shape[1:3], bool)

    @jax.jit
    def step(inputs):
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, mask_BL), *inputs)
        return out, back(out)

    return step.lower(inputs).compile()


def timer(step: jax.stages.Compiled, inputs: jax.Array, num_calls: int = 1) -> Callable[[], float]:
    """A function that calls what `compiled` returned and returns tokens/s.

    Args:
      step: what to call.
      inputs: its argument.
      num_calls: dispatched one after another, so that the device need not wait for the host.
    """
    jax.block_until_ready(step(inputs))

    def timed() -> float:
        since = time.perf_counter()
        for _ in range(num_calls):
            out = step(inputs)
        jax.block_until_ready(out)
        tokens = num_calls * inputs.shape[1] * inputs.shape[2]
        return tokens / (time.perf_counter() - since)

    return timed
