"""The cross-entropy of a large table in blocks against the plain one, differentiated by JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.tasks.losses import cross_entropy, table_cross_entropy, table_logits


def arguments(seed=0, rows=3, positions=5, width=4, vocab=11, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    h = jnp.asarray(rng.normal(size=(rows, positions, width)), dtype)
    table, bias = rng.normal(size=(vocab, width)), rng.normal(size=vocab)
    targets = jnp.asarray(rng.integers(0, vocab, (rows, positions)), jnp.int32)
    weights = rng.integers(0, 3, (rows, positions))
    table, bias, weights = (jnp.asarray(x, jnp.float32) for x in (table, bias, weights))
    return h, table, bias, targets, weights


def plain(h, table, bias, targets, weights):
    logits = table_logits(h.reshape(-1, h.shape[-1]), table, bias)
    return jnp.sum(weights.reshape(-1) * cross_entropy(logits, targets.reshape(-1)))


@pytest.mark.parametrize(
    ("rows", "positions", "blocks"),
    [(3, 5, 2), *(pytest.param(*x, marks=pytest.mark.slow) for x in [(1, 1, 1), (4, 7, 7)])],
)
def test_loss_and_gradients_in_blocks_are_the_plain_ones(rows, positions, blocks):
    args = arguments(1, rows, positions)
    wanted, found = (
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 4)))(*args)
        for loss in (plain, lambda *args: 3 * table_cross_entropy(*args, blocks))
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 3 * b, rtol=1e-5, atol=1e-5), found, wanted
    )


def test_bfloat16_features_meet_float32_sums():
    h, *rest = arguments(width=64, dtype=jnp.bfloat16)
    loss = functools.partial(table_cross_entropy, num_blocks=2)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(h, *rest)
    assert value.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]
    exact = jax.jit(jax.grad(plain, 1))(h.astype(jnp.float32), *rest)
    assert np.abs(gradients[1] - exact).max() < 0.02 * np.abs(exact).max()


def test_blocks_need_a_part_of_the_memory_of_all_logits():
    shapes = jax.eval_shape(lambda: arguments(rows=16, positions=16, width=64, vocab=16384))
    all_logits = 16 * 16 * 16384 * 4

    def temporary_bytes(loss):
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(plain) > 1.9 * all_logits
    blocks = temporary_bytes(lambda *args: table_cross_entropy(*args, 8))
    assert blocks < 0.75 * all_logits  # two blocks' arrays, and the gradient of the table
