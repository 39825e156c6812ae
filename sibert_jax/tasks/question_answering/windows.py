"""Windows over a context that is longer than a sequence, and spans of characters in pieces."""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Windows of one context, in pieces of the context; arrays of (windows,) int32."""

    start: np.ndarray  # first piece
    length: np.ndarray  # pieces
    best_start: np.ndarray  # first piece that has its most context in this window
    best_end: np.ndarray  # one behind the last such piece


def cut_windows(num_pieces: int, room: int, stride: int) -> Windows:
    """Cuts a context into overlapping windows.

    Args:
      num_pieces: pieces of the context, >= 1.
      room: pieces that a window holds, >= 1.
      stride: pieces from the start of one window to the next, >= 1; at most `room` is used, so
        that no piece is left out.

    Returns:
      The windows, and in each the stretch of pieces for which it is the best of all windows: the
      smaller of the numbers of pieces to the left and right is largest there, in a tie of the
      longer, then of the earlier window. The stretches do not overlap and cover the context.

    Example:
      >>> windows = cut_windows(10, room=6, stride=4)
      >>> [array.tolist() for array in windows]  # starts, lengths, stretches
      [[0, 4], [6, 6], [0, 5], [5, 10]]

    References:
      Devlin et al., BERT, https://arxiv.org/abs/1810.04805, the code's `_check_is_max_context`.
    """
    starts = [0]
    while starts[-1] + room < num_pieces:
        starts.append(starts[-1] + min(room, stride))
    start_W = np.array(starts, np.int32)
    length_W = np.minimum(num_pieces - start_W, room).astype(np.int32)
    if len(starts) == 1:
        return Windows(start_W, length_W, start_W, length_W)
    left_WT = np.arange(num_pieces)[None, :] - start_W[:, None]
    right_WT = length_W[:, None] - 1 - left_WT
    margin_WT = np.minimum(left_WT, right_WT)
    score_WT = np.where(margin_WT >= 0, margin_WT + 0.01 * length_W[:, None], -1.0)
    best_T = np.argmax(score_WT, axis=0)
    # The margins are tents side by side, so each window is the best on one stretch.
    best_start = np.searchsorted(best_T, np.arange(len(starts)), side="left")
    best_end = np.searchsorted(best_T, np.arange(len(starts)), side="right")
    return Windows(start_W, length_W, best_start.astype(np.int32), best_end.astype(np.int32))


def pieces_of_span(
    starts_T: np.ndarray, ends_T: np.ndarray, start: int, end: int
) -> tuple[int, int] | None:
    """The first and last piece that share a character with text[start:end]; None: no piece does.

    Example:
      >>> starts, ends = np.array([0, 4, 7]), np.array([3, 7, 9])
      >>> pieces_of_span(starts, ends, 5, 8)
      (1, 2)
    """
    first = int(np.searchsorted(ends_T, start, side="right"))
    last = int(np.searchsorted(starts_T, end, side="left")) - 1
    return (first, last) if first <= last else None
