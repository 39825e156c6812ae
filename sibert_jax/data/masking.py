"""Masking: the tokens to predict, and what replaces them in the input."""

import math

import numpy as np

from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError

SHOW_MASK = 0.8
SHOW_RANDOM = 0.1  # the remaining 0.1 show the token itself


class Masker:
    """Chooses max(1, round(mask_rate · n)) of an example's n tokens and hides them.

    A chosen token is shown as [MASK] (80 %), as a random ordinary token (10 %) or as itself (10 %).
    Special tokens count towards n but are neither chosen nor drawn.

    Args:
      tokenizer: the tokenizer of the examples.
      seq_len: L, the length of an example.
      mask_rate: the fraction of tokens to choose, in (0, 1).
      whole_word: whether to choose all WordPieces of a word or none; a word that would exceed the
        number above is skipped.

    Raises:
      DataError: if `mask_rate` is outside (0, 1).

    References:
      Devlin et al., BERT, https://arxiv.org/abs/1810.04805, §3.1 task 1 and appendix A.1.
    """

    def __init__(self, tokenizer: WordPiece, seq_len: int, mask_rate: float, whole_word: bool):
        if not 0 < mask_rate < 1:
            raise DataError(f"task.mask_rate must lie between 0 and 1, found {mask_rate}")
        self._tokenizer = tokenizer
        self._mask_rate = mask_rate
        self._whole_word = whole_word
        self._ordinary = np.flatnonzero(~tokenizer.is_special).astype(np.int32)
        self.num_masked = math.ceil(mask_rate * seq_len)

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Chooses positions of `tokens` and masks them.

        Args:
          tokens: (L,) int32, changed in place.
          rng: the source of all random choices.

        Returns:
          The chosen positions, ascending, at most `num_masked`; none if all tokens are special.
        """
        num_real = np.count_nonzero(tokens != self._tokenizer.pad_id)
        wanted = min(self.num_masked, max(1, round(self._mask_rate * num_real)))
        rank_L = rng.random(len(tokens))
        action_P, draw_P = rng.random((2, self.num_masked))
        candidates = np.flatnonzero(~self._tokenizer.is_special[tokens])
        if self._whole_word:
            chosen = self._choose_words(tokens, candidates, rank_L, wanted)
        else:
            chosen = candidates[np.argsort(rank_L[candidates], kind="stable")[:wanted]]
        chosen.sort()
        action, draw = action_P[: len(chosen)], draw_P[: len(chosen)]
        random_token = self._ordinary[(draw * len(self._ordinary)).astype(np.int64)]
        shown = np.where(action < SHOW_MASK, self._tokenizer.mask_id, tokens[chosen])
        shown = np.where(action >= 1 - SHOW_RANDOM, random_token, shown)
        tokens[chosen] = shown
        return chosen

    def _choose_words(
        self, tokens: np.ndarray, candidates: np.ndarray, rank_L: np.ndarray, wanted: int
    ) -> np.ndarray:
        """Takes whole words in random order while they fit."""
        # A continuation without its beginning (a chunk cut mid-word) counts as a word.
        follows = np.diff(candidates, prepend=-2) == 1
        begins = ~(self._tokenizer.is_continuation[tokens[candidates]] & follows)
        first = np.flatnonzero(begins)
        lengths = np.diff(first, append=len(candidates))
        chosen: list[np.ndarray] = []
        room = wanted
        for word in np.argsort(rank_L[candidates[first]], kind="stable"):
            if lengths[word] <= room:
                chosen.append(candidates[first[word] : first[word] + lengths[word]])
                room -= lengths[word]
            if not room:
                break
        return np.concatenate(chosen) if chosen else candidates[:0]
