"""Batches of masked or next-token examples, as a pure function of the step."""

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.masking import Masker
from sibert_jax.data.pretraining_examples import Examples
from sibert_jax.data.randomness import EpochPermutations, Purpose, generator
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError

Batch = dict[str, np.ndarray]


class ExampleBatches:
    """Maps each step and row of a batch to an example, with no state but the step.

    Position g = step·B + row of the stream is example perm_epoch[g mod n] of epoch g div n, where n
    is the number of examples. Nothing depends on the number of processes.

    Args:
      examples: the examples to draw from.
      global_batch_size: B, over all processes.
      seed: random seed of the order, 0 <= seed < 2**64.
      shuffle: False for evaluation: one pass in the order of epoch 0 (so that the first batches are
        representative); the last batch is padded with rows of weight 0.

    Raises:
      DataError: if the examples do not fill one training batch, or an argument is out of range.
    """

    def __init__(self, examples: Examples, *, global_batch_size: int, seed: int, shuffle: bool):
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
        self.fingerprint = digest(examples.fingerprint, global_batch_size, seed, shuffle)
        self._examples = examples
        self._seed = seed
        self._shuffle = shuffle
        self._permutations = EpochPermutations(seed, len(examples))

    @property
    def num_examples(self) -> int:
        """The number of examples per epoch."""
        return len(self._examples)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in which every example occurs at least once."""
        return -(-len(self._examples) // self.global_batch_size)

    def __len__(self) -> int:
        if self._shuffle:
            raise TypeError("training batches have no end")
        return self.steps_per_epoch

    def _places(self, step: int, rows: slice) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Returns epoch and index of the example of each row, and example_weights."""
        if step < 0 or (not self._shuffle and step >= len(self)):
            raise IndexError(f"there is no batch of step {step}")
        places, weights = [], []
        for row in range(self.global_batch_size)[rows]:
            position = step * self.global_batch_size + row
            epoch, place = divmod(position, len(self._examples))
            places.append((epoch, int(self._permutations(epoch)[place])))
            # Padded with real examples, so that every row has a valid token.
            weights.append(0.0 if epoch and not self._shuffle else 1.0)
        return places, np.array(weights, np.float32)


class NextTokenBatches(ExampleBatches):
    """Batches of `NextTokenExamples`: tokens and their successors.

    Args:
      examples, global_batch_size, seed, shuffle: see `ExampleBatches`.
      start_id: the token that starts a document, for numbering documents; None: no numbers.
    """

    def __init__(self, examples: Examples, *, start_id: int | None = None, **keys):
        super().__init__(examples, **keys)
        self._start_id = start_id

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """Returns rows of the batch of one step.

        Args:
          step: step >= 0, and < len(self) if shuffle=False.
          rows: which of the B rows to return, such as those of one process.

        Returns:
          tokens, targets and segments, all 0, (B,L) int32; attention_mask (B,L) bool, all True;
          example_weights (B,) float32, 0 on padding rows of the last evaluation batch; with a
          `start_id`, documents (B,L) int32, counted from 0 in each row.

        Raises:
          IndexError: if there is no such step.
        """
        places, weights_B = self._places(step, rows)
        read = [self._examples.example(*place)[0] for place in places]
        tokens_BT = np.array(read, np.int32).reshape(len(read), self.seq_len + 1)
        batch = {
            "tokens": tokens_BT[:, :-1],
            "targets": tokens_BT[:, 1:],
            "segments": np.zeros((len(read), self.seq_len), np.int32),
            "attention_mask": np.ones((len(read), self.seq_len), bool),
            "example_weights": weights_B,
        }
        if self._start_id is not None:
            starts_BL = batch["tokens"][:, 1:] == self._start_id
            starts_BL = np.pad(starts_BL, ((0, 0), (1, 0)))
            batch["documents"] = np.cumsum(starts_BL, axis=1, dtype=np.int32)
        return batch


class PretrainingBatches(ExampleBatches):
    """Batches of `PackedExamples` or `PairExamples`, masked; masks differ between epochs.

    Args:
      examples, global_batch_size, seed, shuffle: see `ExampleBatches`; the seed also determines the
        masks, which are fixed if shuffle=False.
      tokenizer: the tokenizer of the examples.
      mask_rate: the fraction of tokens to predict, in (0, 1).
      whole_word: whether to mask all WordPieces of a word together.

    Raises:
      DataError: if the examples do not fill one training batch, or an argument is out of range.
    """

    def __init__(
        self,
        examples: Examples,
        tokenizer: WordPiece,
        *,
        global_batch_size: int,
        seed: int,
        mask_rate: float,
        whole_word: bool,
        shuffle: bool,
    ):
        super().__init__(examples, global_batch_size=global_batch_size, seed=seed, shuffle=shuffle)
        self.fingerprint = digest(
            examples.fingerprint, global_batch_size, seed, mask_rate, whole_word, shuffle
        )
        self._tokenizer = tokenizer
        self._masker = Masker(tokenizer, self.seq_len, mask_rate, whole_word)

    @property
    def num_masked(self) -> int:
        """P = ceil(mask_rate · L), the positions predicted in each row."""
        return self._masker.num_masked

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """Returns rows of the batch of one step.

        Args:
          step: step >= 0, and < len(self) if shuffle=False.
          rows: which of the B rows to return, such as those of one process.

        Returns:
          tokens (B,L) int32; segments (B,L) int32; attention_mask (B,L) bool, False on padding;
          masked_positions (B,P) int32; masked_targets (B,P) int32; masked_weights (B,P) float32, 0
          beyond the number masked; example_weights (B,) float32, 0 on padding rows of the last
          evaluation batch; nsp_labels (B,) int32, 1 where the second span is random.

        Raises:
          IndexError: if there is no such step.
        """
        places, weights_B = self._places(step, rows)
        num_rows, length, num_masked = len(places), self.seq_len, self.num_masked
        batch = {
            "tokens": np.empty((num_rows, length), np.int32),
            "segments": np.empty((num_rows, length), np.int32),
            "masked_positions": np.zeros((num_rows, num_masked), np.int32),
            "masked_targets": np.zeros((num_rows, num_masked), np.int32),
            "masked_weights": np.zeros((num_rows, num_masked), np.float32),
            "example_weights": weights_B,
            "nsp_labels": np.empty(num_rows, np.int32),
        }
        for i, place in enumerate(places):
            self._fill_row(batch, i, *place)
        batch["attention_mask"] = batch["tokens"] != self._tokenizer.pad_id
        return batch

    def _fill_row(self, batch: Batch, i: int, epoch: int, index: int) -> None:
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
