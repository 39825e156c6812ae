"""What the head reads of an example: the first token, a mean, or a comparison of two texts."""

import numpy as np
import pytest

from sibert_jax.tasks.classification.task import pool

WIDTH = 4
X = np.random.default_rng(0).normal(size=(2, 6, WIDTH)).astype(np.float32)
BATCH = {  # a pair without padding; a text with two places of it
    "segments": np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], bool),
}
A, B = X[0, :3].mean(axis=0), X[0, 3:].mean(axis=0)
ONE = X[1, :4].mean(axis=0)


@pytest.mark.parametrize(
    ("pooling", "of_pair", "of_text"),
    [
        ("first", X[0, 0], X[1, 0]),
        ("mean", X[0].mean(axis=0), ONE),
        ("pair", [*A, *B, *abs(A - B), *A * B], [*ONE, *0 * ONE, *abs(ONE), *0 * ONE]),
    ],
)
def test_padding_is_left_out_and_texts_are_kept_apart(pooling, of_pair, of_text):
    np.testing.assert_allclose(pool(X, BATCH, pooling), [of_pair, of_text], rtol=1e-5)
