"""Windows as rows of a batch. Letters: B batch, L length, W windows."""

import numpy as np

from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.tasks.question_answering.features import Features


class WindowRows:
    """The windows of a data set, as what batches are drawn from.

    Args:
      features: the windows.
      tokenizer: the one they were made with.
      fingerprint: changes whenever a window would.
    """

    def __init__(self, features: Features, tokenizer: Tokenizer, fingerprint: str):
        self.features, self.fingerprint = features, fingerprint
        self.lengths = features.lengths
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """Returns the given windows padded to `seq_len`.

        Returns:
          tokens (B,L) int32; segments (B,L) int32, 1 from the context on; valid (B,L) bool, False
          on padding; may_end (B,L) bool, True on the context, where answers are; may_start (B,L)
          bool, True on those of its pieces that have their most context in this window;
          answer_first, answer_last (B,) int32, positions of the answer, 0 if it is not there.
        """
        shape = (len(indices_B), seq_len)
        batch = {
            "tokens": np.full(shape, self._tokenizer.pad_id, np.int32),
            "segments": np.zeros(shape, np.int32),
            "valid": np.zeros(shape, bool),
            "may_start": np.zeros(shape, bool),
            "may_end": np.zeros(shape, bool),
            "answer_first": np.zeros(len(indices_B), np.int32),
            "answer_last": np.zeros(len(indices_B), np.int32),
        }
        for i, window in enumerate(indices_B):
            self._fill_row(batch, i, window)
        return batch

    def _fill_row(self, batch: dict[str, np.ndarray], i: int, window: int) -> None:
        f, tokenizer = self.features, self._tokenizer
        question, start = f.window_question[window], f.window_start[window]
        begin, length = f.context_position(window), int(f.window_length[window])
        end = begin + length
        first_piece = f.context_slice(question).start + start
        tokens_L = batch["tokens"][i]
        tokens_L[0] = tokenizer.cls_id
        tokens_L[1 : begin - 1] = f.question(question)
        tokens_L[begin - 1] = tokenizer.sep_id
        tokens_L[begin:end] = f.context_ids[first_piece : first_piece + length]
        tokens_L[end] = tokenizer.sep_id
        batch["segments"][i, begin : end + 1] = 1
        batch["valid"][i, : end + 1] = True
        batch["may_end"][i, begin:end] = True
        best_start, best_end = f.window_best_start[window], f.window_best_end[window]
        batch["may_start"][i, begin + best_start - start : begin + best_end - start] = True
        batch["answer_first"][i], batch["answer_last"][i] = f.answer_positions(window)
