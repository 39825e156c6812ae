"""The best spans of a window, found where the logits are.

Letters: B batch, L length, A pieces of the longest answer, C candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Spans(NamedTuple):
    """Candidates, best first; a `score` of -inf marks that there are no more."""

    score_BC: jax.Array  # float32, start logit + end logit
    first_BC: jax.Array  # int32, position of the first piece
    last_BC: jax.Array  # int32, of the last


def best_spans(
    start_BL: jax.Array,
    end_BL: jax.Array,
    may_start_BL: jax.Array,
    may_end_BL: jax.Array,
    *,
    max_len: int,
    count: int,
) -> Spans:
    """Returns the spans of highest score among all of at most `max_len` pieces.

    Args:
      start_BL: float32, logits of starting here.
      end_BL: float32, logits of ending here.
      may_start_BL: bool, where a span may start.
      may_end_BL: bool, where it may end.
      max_len: A >= 1.
      count: C >= 1.
    """
    num_rows, seq_len = start_BL.shape
    starts_BL = jnp.where(may_start_BL, start_BL, -jnp.inf)
    ends_BL = jnp.where(may_end_BL, end_BL, -jnp.inf)
    ends_BM = jnp.pad(ends_BL, ((0, 0), (0, max_len - 1)), constant_values=-jnp.inf)
    ends_BLA = jnp.stack([ends_BM[:, a : a + seq_len] for a in range(max_len)], axis=-1)
    score_BS = (starts_BL[:, :, None] + ends_BLA).reshape(num_rows, seq_len * max_len)
    score_BC, index_BC = jax.lax.top_k(score_BS, min(count, seq_len * max_len))
    first_BC = index_BC // max_len
    return Spans(score_BC, first_BC, first_BC + index_BC % max_len)
