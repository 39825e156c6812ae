"""Token-by-token generation with cached keys and values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.tasks.causal_lm.task import CausalLMConfig


def generate(
    module: nn.Module,
    task: CausalLMConfig,
    params,
    batch: dict[str, jax.Array],
    seed: jax.Array | int,
    *,
    end_id: int,
    max_tokens: int,
) -> jax.Array:
    """Continues every row up to `end_id`, its limit of new tokens, or T tokens.

    All rows advance together: a step processes one token of each row at the same position, so a
    short prompt is already continued while a longer one is still being read. Keys and values are
    cached for T positions, and every step costs the same.

    Args:
      module: encoder and head of a causal language model.
      task: how tokens are chosen, and the maximum number of new ones.
      params: {"encoder": ..., "head": ...}.
      batch: "tokens" (B, L), padded on the right, "attention_mask", False on padding, and
        "example_index" (B,), which selects a row's random numbers.
      seed: random seed of the sampling.
      end_id: id of the end-of-text token.
      max_tokens: T >= L, tokens per row including the prompt, at most model.max_len.

    Returns:
      (B, T) int32: the prompt, its continuation, then `end_id` up to T.
    """
    prompts_BL, mask_BL = batch["tokens"], batch["attention_mask"]
    num_rows, num_places = prompts_BL.shape
    length_B = mask_BL.sum(axis=1, dtype=jnp.int32)
    limit_B = jnp.minimum(length_B + task.max_new_tokens, max_tokens)
    tokens_BT = (
        jnp.full((num_rows, max_tokens), end_id, jnp.int32).at[:, :num_places].set(prompts_BL)
    )
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["example_index"])

    def run(cache, tokens, mask, place):
        inputs = {"tokens": tokens, "segments": jnp.zeros_like(tokens), "attention_mask": mask}
        (projection, _), kept = module.apply(
            {"params": params, **cache}, inputs, place=place, mutable=["cache"]
        )
        return projection, kept

    _, cache = run({}, prompts_BL, mask_BL, 0)
    cache = jax.tree.map(lambda x: _padded(x, max_tokens), cache)
    place_T = jnp.arange(max_tokens, dtype=jnp.int32)

    def is_unfinished(state):
        place, _, _, ended_B = state
        return ~jnp.all(ended_B | (place + 1 >= limit_B))

    def step(state):
        place, tokens_BT, cache, ended_B = state
        token_B1 = jax.lax.dynamic_slice_in_dim(tokens_BT, place, 1, axis=1)
        seen_BT = jnp.broadcast_to(place_T[None] <= place, tokens_BT.shape)
        projection, cache = run(cache, token_B1, seen_BT, place)
        next_B = choose(projection.logits()[:, 0], keys_B, place, task)
        is_prompt_B = place + 1 < length_B
        given_B = jax.lax.dynamic_index_in_dim(tokens_BT, place + 1, 1, keepdims=False)
        next_B = jnp.where(ended_B | (place + 1 >= limit_B), end_id, next_B)
        next_B = jnp.where(is_prompt_B, given_B, next_B)
        tokens_BT = jax.lax.dynamic_update_index_in_dim(tokens_BT, next_B, place + 1, 1)
        return place + 1, tokens_BT, cache, ended_B | (~is_prompt_B & (next_B == end_id))

    # Read the last token of the shortest prompt again, as its outputs are needed.
    start = (length_B.min() - 1, tokens_BT, cache, jnp.zeros(num_rows, bool))
    tokens_BT = jax.lax.while_loop(is_unfinished, step, start)[1]
    return jnp.where(place_T[None] < limit_B[:, None], tokens_BT, end_id)


def choose(
    logits_BV: jax.Array, keys_B: jax.Array, place: jax.Array, task: CausalLMConfig
) -> jax.Array:
    """Returns the next token of each row, (B,) int32: the most likely, or sampled."""
    if task.temperature == 0:
        return logits_BV.argmax(axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / task.temperature
    num_tokens = logits_BV.shape[-1]
    if 0 < task.top_k < num_tokens:
        least_B1 = jax.lax.top_k(logits_BV, task.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    if task.top_p < 1:
        sorted_BV = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
        probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV  # keep the best one
        kept_BV = jnp.where(before_BV < task.top_p, sorted_BV, jnp.inf)
        logits_BV = jnp.where(logits_BV >= kept_BV.min(axis=-1, keepdims=True), logits_BV, -jnp.inf)
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, place)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def new_tokens(tokens_T: np.ndarray, prompt_len: int, end_id: int) -> np.ndarray:
    """Returns the tokens of a row of `generate` after its prompt, up to `end_id`."""
    after = tokens_T[prompt_len:]
    (ends,) = np.nonzero(after == end_id)
    return after[: ends[0]] if len(ends) else after


def _padded(cached: jax.Array, num_keys: int) -> jax.Array:
    """Pads cached keys or values, (..., M, H, K), to M = `num_keys`."""
    missing = num_keys - cached.shape[-3]
    return jnp.pad(cached, [(0, 0)] * (cached.ndim - 3) + [(0, missing), (0, 0), (0, 0)])
