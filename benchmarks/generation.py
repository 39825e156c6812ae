"""Continuing a text with cached keys and values, against the whole text anew for each token."""

import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from benchmarks import measuring
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.causal_lm.generation import generate
from sibert_jax.tasks.causal_lm.task import CausalLM, CausalLMConfig

LENGTHS = (128, 512, 2048)
CACHED, ANEW = "with the cache", "without"
NEVER = -1  # no token, so that every continuation has the full length


def measure(
    lengths: Sequence[int] = LENGTHS,
    *,
    width: int = 256,
    depth: int = 4,
    num_anew: int = 8,
    repeats: int = 3,
) -> measuring.Result:
    """Tokens/s of one text of `lengths` tokens, of which the first is given.

    Args:
      lengths: of the text, each a group.
      width: of the model.
      depth: of the model.
      num_anew: tokens that are measured without the cache; each costs the same.
      repeats: of each.
    """
    rows = []
    for length in lengths:
        model = ModelConfig(
            arch="gpt", max_len=length, width=width, ffn_width=4 * width, depth=depth,
            num_heads=max(1, width // 64),
        )  # fmt: skip
        task = CausalLM(model, CausalLMConfig(head="tied", max_new_tokens=length), (length,))
        batch = {
            name: jnp.zeros(shape.shape, shape.dtype)
            for name, shape in task.abstract_batch(1, length).items()
        }
        params = jax.jit(task.init)(jax.random.key(0), batch)
        timed = {CACHED: cached(task, params, length), ANEW: anew(task, params, batch, num_anew)}
        rows += measuring.rows(measuring.in_turn(timed, repeats), ANEW, f"{length:,} tokens")
    return measuring.Result(
        title=f"Continuing a text, GPT of {depth} × {width}, float32, one text at a time",
        unit="tokens/s",
        more_is_better=True,
        baseline=ANEW,
        rows=rows,
        notes=[
            "With the cache a token costs the products of one token and attention to all places of "
            "the cache."
        ],
    )


def cached(task: CausalLM, params, length: int) -> Callable[[], float]:
    """Times a continuation of one token to `length` tokens."""
    prompt = {
        "tokens": jnp.zeros((1, 1), jnp.int32),
        "attention_mask": jnp.ones((1, 1), bool),
        "example_index": jnp.zeros(1, jnp.int32),
    }
    run = jax.jit(
        functools.partial(generate, task.model, task.task, end_id=NEVER, max_tokens=length)
    )
    return timer(lambda: run(params, prompt, 0), length - 1)


def anew(task: CausalLM, params, batch: dict, num_tokens: int) -> Callable[[], float]:
    """Times as many tokens, each from all `length` places of the text."""
    next_token = jax.jit(lambda params, batch: task.logits(params, batch)[0, -1].argmax())
    return timer(lambda: [next_token(params, batch) for _ in range(num_tokens)], num_tokens)


def timer(run: Callable, num_tokens: int) -> Callable[[], float]:
    """A function that runs once and returns tokens/s; what it runs is compiled already."""
    jax.block_until_ready(run())

    def timed() -> float:
        since = time.perf_counter()
        jax.block_until_ready(run())
        return num_tokens / (time.perf_counter() - since)

    return timed
