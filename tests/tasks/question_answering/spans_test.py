"""The best spans against a search through all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.tasks.question_answering.spans import best_spans


def all_spans(start, end, may_start, may_end, max_len):
    length = len(start)
    spans = [
        (float(start[i] + end[j]), i, j)
        for i in range(length)
        for j in range(i, min(i + max_len, length))
        if may_start[i] and may_end[j]
    ]
    return sorted(spans, key=lambda span: -span[0])


@pytest.mark.parametrize("max_len", [1, 4, 40])
def test_the_spans_are_the_best_of_all(max_len):
    rng = np.random.default_rng(max_len)
    start, end = rng.normal(size=(2, 3, 12)).astype(np.float32)
    may_start, may_end = rng.random((2, 3, 12)) < 0.7
    spans = jax.jit(lambda *x: best_spans(*x, max_len=max_len, count=6))(
        *map(jnp.asarray, (start, end, may_start, may_end))
    )
    for row in range(3):
        wanted = all_spans(start[row], end[row], may_start[row], may_end[row], max_len)[:6]
        found = zip(spans.score_BC[row], spans.first_BC[row], spans.last_BC[row])
        found = [(float(s), int(i), int(j)) for s, i, j in found if np.isfinite(s)]
        assert [span[1:] for span in found] == [span[1:] for span in wanted]
        np.testing.assert_allclose([s for s, *_ in found], [s for s, *_ in wanted], rtol=1e-6)


def test_where_fewer_spans_are_possible_the_rest_is_marked():
    zeros = jnp.zeros((1, 4))
    only = jnp.asarray([[False, True, False, False]])
    spans = best_spans(zeros, zeros, only, only, max_len=3, count=5)
    assert np.isfinite(spans.score_BC).sum() == 1
    assert (int(spans.first_BC[0, 0]), int(spans.last_BC[0, 0])) == (1, 1)
    few = best_spans(zeros, zeros, only, only, max_len=1, count=20)
    assert few.score_BC.shape == (1, 4)
