"""The most likely tokens at the masks of a text. Notation: model/config.py."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sibert_jax.data import WordPiece, join_pair
from sibert_jax.errors import ConfigError

MASK = "[MASK]"


class Guess(NamedTuple):
    """A candidate token for a mask."""

    token: str  # a WordPiece token; "##..." continues a word
    probability: float


def guess(
    text: str,
    top_k: int,
    *,
    tokenizer: WordPiece,
    max_tokens: int,
    read: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> list[list[Guess]]:
    """Returns the most likely tokens for each mask of a text, best first.

    Args:
      text: contains MASK at least once.
      top_k: number of guesses per mask.
      tokenizer: the model's tokenizer.
      max_tokens: length at which the text is truncated.
      read: maps tokens (L,) and the mask positions (P,) to the model's logits (P, V).

    Raises:
      ConfigError: there is no mask within `max_tokens`.
    """
    parts = tokenizer.encode_batch(text.split(MASK))
    tokens_L = parts[0]
    for part in parts[1:]:
        tokens_L = np.concatenate([tokens_L, [tokenizer.mask_id], part]).astype(np.int32)
    joined_L, _ = join_pair(tokens_L, None, tokenizer, max_tokens)
    (positions_P,) = np.nonzero(joined_L == tokenizer.mask_id)
    if len(positions_P) != len(parts) - 1 or not len(positions_P):
        raise ConfigError(
            f"fill_mask: {MASK} occurs {len(parts) - 1} times in the text, and "
            f"{len(positions_P)} times in its first {max_tokens} tokens; write it in "
            "place of each word to guess."
        )
    guesses = []
    for logits_V in read(joined_L, positions_P):
        weight_V = np.exp(logits_V - logits_V.max())
        probability_V = weight_V / weight_V.sum()
        best = np.argsort(-probability_V, kind="stable")[:top_k]
        guesses.append([Guess(tokenizer.pieces[i], float(probability_V[i])) for i in best])
    return guesses
