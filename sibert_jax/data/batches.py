"""Batches of masked examples as a pure function of the step."""

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.masking import Masker
from sibert_jax.data.randomness import EpochPermutations, Purpose, generator
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.data.weighted import Examples
from sibert_jax.errors import DataError

Batch = dict[str, np.ndarray]


class PretrainingBatches:
    """The batch of any step, without any state but the step.

    Place g = step·B + row of the stream is example perm_epoch[g mod n] of epoch g div n, where n is
    the number of examples; masks are drawn anew each epoch. Nothing depends on the number of hosts
    or workers.

    Args:
      examples: what to draw from.
      tokenizer: the one the examples were made with.
      global_batch_size: B, over all hosts.
      seed: of the order and the masks, 0 <= seed < 2**64.
      mask_rate: the share of tokens to predict.
      whole_word: whether to mask whole words.
      shuffle: False is for evaluation: one pass in the order of epoch 0 (so that the first few
        batches already stand for the whole) with masks that are always the same, the last batch
        filled up with rows of weight 0.

    Raises:
      DataError: if there are fewer examples than one batch of training takes, or an argument is
        outside its range.
    """

    def __init__(
        self,
        examples: Examples,
        tokenizer: Tokenizer,
        *,
        global_batch_size: int,
        seed: int,
        mask_rate: float,
        whole_word: bool,
        shuffle: bool,
    ):
        if global_batch_size < 1:
            raise DataError(f"train.global_batch_size must be positive, found {global_batch_size}")
        if not 0 <= seed < 2**64:
            raise DataError(f"seed must be in [0, 2**64), found {seed}")
        if shuffle and len(examples) < global_batch_size:
            raise DataError(
                f"the corpus gives {len(examples)} examples of {examples.seq_len} tokens, fewer "
                f"than one batch of train.global_batch_size={global_batch_size}; give more text, "
                "smaller batches or shorter sequences"
            )
        self.seq_len = examples.seq_len
        self.global_batch_size = global_batch_size
        self.fingerprint = digest(
            examples.fingerprint, global_batch_size, seed, mask_rate, whole_word, shuffle
        )
        self._examples = examples
        self._tokenizer = tokenizer
        self._seed = seed
        self._shuffle = shuffle
        self._masker = Masker(tokenizer, self.seq_len, mask_rate, whole_word)
        self._permutations = EpochPermutations(seed, len(examples))

    @property
    def num_masked(self) -> int:
        """P = ceil(mask_rate · L), the positions predicted in each row."""
        return self._masker.num_masked

    @property
    def num_examples(self) -> int:
        """Examples of an epoch."""
        return len(self._examples)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every example comes at least once."""
        return -(-len(self._examples) // self.global_batch_size)

    def __len__(self) -> int:
        if self._shuffle:
            raise TypeError("batches for training have no end")
        return self.steps_per_epoch

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """Returns rows of the batch of one step.

        Args:
          step: 0 <= step, and < len(self) where shuffle=False.
          rows: which of the B rows, such as those of one host.

        Returns:
          tokens (B,L) int32; segments (B,L) int32; valid (B,L) bool, False on padding;
          masked_positions (B,P) int32; masked_targets (B,P) int32; masked_weights (B,P) float32, 0
          beyond the number masked; example_weights (B,) float32, 0 on rows that fill up the last
          batch of an evaluation; nsp_labels (B,) int32, 1 where the second span is random.

        Raises:
          IndexError: if there is no such step.
        """
        if step < 0 or (not self._shuffle and step >= len(self)):
            raise IndexError(f"there is no batch of step {step}")
        row_numbers = range(self.global_batch_size)[rows]
        num_rows, length, num_masked = len(row_numbers), self.seq_len, self.num_masked
        batch = {
            "tokens": np.empty((num_rows, length), np.int32),
            "segments": np.empty((num_rows, length), np.int32),
            "masked_positions": np.zeros((num_rows, num_masked), np.int32),
            "masked_targets": np.zeros((num_rows, num_masked), np.int32),
            "masked_weights": np.zeros((num_rows, num_masked), np.float32),
            "example_weights": np.ones(num_rows, np.float32),
            "nsp_labels": np.empty(num_rows, np.int32),
        }
        for i, row in enumerate(row_numbers):
            self._fill_row(batch, i, step * self.global_batch_size + row)
        batch["valid"] = batch["tokens"] != self._tokenizer.pad_id
        return batch

    def _fill_row(self, batch: Batch, i: int, stream_position: int) -> None:
        epoch, position = divmod(stream_position, len(self._examples))
        if epoch and not self._shuffle:
            # Filling up: with real examples, so that no row is without a valid token.
            batch["example_weights"][i] = 0
        index = int(self._permutations(epoch)[position])
        tokens, segments, is_random_next = self._examples.example(epoch, index)
        original = tokens.copy()
        rng = generator(self._seed, Purpose.MASK, epoch, index)
        positions = self._masker(tokens, rng)
        batch["tokens"][i] = tokens
        batch["segments"][i] = segments
        batch["masked_positions"][i, : len(positions)] = positions
        batch["masked_targets"][i, : len(positions)] = original[positions]
        batch["masked_weights"][i, : len(positions)] = batch["example_weights"][i]
        batch["nsp_labels"][i] = is_random_next
