"""Windows and their best stretches, against the definitions spelled out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.tasks.question_answering.windows import cut_windows, pieces_of_span


def devlin_windows(num_pieces, room, stride):
    """The loop of BERT's code."""
    spans, start = [], 0
    while start < num_pieces:
        length = min(num_pieces - start, room)
        spans.append((start, length))
        if start + length == num_pieces:
            break
        start += min(length, stride)
    return spans


def devlin_is_max_context(spans, current, position):
    """The function of BERT's code."""
    best_score, best_index = None, None
    for index, (start, length) in enumerate(spans):
        end = start + length - 1
        if position < start or position > end:
            continue
        score = min(position - start, end - position) + 0.01 * length
        if best_score is None or score > best_score:
            best_score, best_index = score, index
    return current == best_index


sizes = st.tuples(st.integers(1, 120), st.integers(1, 30), st.integers(1, 40)) | st.tuples(
    st.integers(400, 700), st.integers(250, 390), st.integers(90, 300)
)


@settings(max_examples=200)
@given(sizes)
def test_windows_and_best_stretches_are_those_of_bert(size):
    num_pieces, room, stride = size
    windows = cut_windows(num_pieces, room, stride)
    spans = devlin_windows(num_pieces, room, stride)
    assert list(zip(windows.start, windows.length)) == spans
    for i, (start, length) in enumerate(spans):
        best = [p for p in range(start, start + length) if devlin_is_max_context(spans, i, p)]
        assert best == list(range(windows.best_start[i], windows.best_end[i]))


@settings(max_examples=100)
@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 90))
def test_every_piece_has_its_most_context_in_exactly_one_window(num_pieces, room, stride):
    windows = cut_windows(num_pieces, room, stride)
    assert windows.best_start[0] == 0
    assert windows.best_end[-1] == num_pieces
    np.testing.assert_array_equal(windows.best_start[1:], windows.best_end[:-1])


@pytest.mark.parametrize(
    ("span", "wanted"),
    [
        ((0, 3), (0, 0)),
        ((4, 9), (1, 2)),
        ((5, 6), (1, 1)),  # inside a piece
        ((2, 8), (0, 2)),  # from inside one to inside another
        ((3, 4), None),  # the space between
        ((9, 12), None),  # behind the last
        ((2, 30), (0, 2)),
    ],
)
def test_a_span_has_the_pieces_that_share_a_letter_with_it(span, wanted):
    starts, ends = np.array([0, 4, 7]), np.array([3, 7, 9])
    assert pieces_of_span(starts, ends, *span) == wanted


def test_pieces_of_one_letter_belong_to_it_together():
    starts, ends = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 2])
    assert pieces_of_span(starts, ends, 0, 1) == (0, 2)
