"""SGD of which each block starts at its equilibrium: its formula, and what does not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import (
    ROWS,
    Rows,
    equilibrium_sgd,
    rotation,
    scale_invariant_sgd,
    scale_to_equilibrium,
)

from .conftest import assert_close, assert_equal, numpy_norm, random_tree

P = 2e-3
SHAPES = (("layers", (3, 4, 5)), ("bias", (3, 5)), ("table", (7, 4)))
BLOCKS = {"layers": Rows("ffn"), "bias": Rows("ffn"), "table": "table"}


def tree(seed, scale=1.0):
    return random_tree(seed, scale, SHAPES)


def blocks_of(params):
    """The arrays of each block, as lists."""
    layers = [[params["layers"][i], params["bias"][i]] for i in range(3)]
    return [*layers, [params["table"]]]


def run(tx, params, gradients):
    """All parameters on the way, of gradients that depend on the parameters as x -> g/‖x‖ does."""
    state, step, found = tx.init(params), jax.jit(tx.update), [params]
    for g in gradients:
        g = jax.tree.map(lambda g, x: g / jnp.linalg.norm(x), g, params)
        updates, state = step(g, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state


def test_scales_each_block_by_the_mean_of_its_first_gradients_and_then_stays():
    tx = scale_to_equilibrium(P, memory=None, measure_steps=2, blocks=BLOCKS)
    params, grads = tree(0), [tree(1), tree(2, 3.0), tree(3, 0.1)]
    state = tx.init(params)
    for step, g in enumerate(grads):
        updates, state = tx.update(g, state, params)
        for i, (x, u) in enumerate(zip(blocks_of(params), blocks_of(updates))):
            seen = [numpy_norm(blocks_of(g)[i]) for g in grads[: min(step, 1) + 1]]
            sigma = numpy_norm(x) * np.sqrt(np.mean(np.square(seen)))
            eta = np.sqrt(2 * P) * numpy_norm(x) ** 2 / sigma
            assert_close(u, [eta * np.float64(leaf) for leaf in blocks_of(g)[i]])
    assert (state.scale["ffn"].shape, state.scale["table"].shape) == ((3,), ())


def test_with_memory_the_angle_stays_while_the_gradients_shrink():
    tx = equilibrium_sgd(1.0, P, memory=10, blocks=BLOCKS)
    found, _ = run(tx, tree(0), [tree(i, 0.99**i) for i in range(60)])
    turned = [
        rotation(x, jax.tree.map(jnp.subtract, y, x))
        for before, after in zip(found[-20:-1], found[-19:])
        for x, y in zip(blocks_of(before), blocks_of(after))
    ]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(turned))), np.sqrt(2 * P), rtol=0.1)


def test_is_the_papers_step_on_the_scaled_gradients():
    tx = equilibrium_sgd(0.5, P, clip_factor=2.0, measure_steps=1, blocks=BLOCKS)
    scaling = scale_to_equilibrium(P, measure_steps=1, blocks=BLOCKS)
    paper = scale_invariant_sgd(0.5, P, 2.0, blocks=BLOCKS)
    params, g = tree(0), tree(1)
    scaled, _ = scaling.update(g, scaling.init(params), params)
    wanted, _ = paper.update(scaled, paper.init(params), params)
    assert_equal(tx.update(g, tx.init(params), params)[0], wanted)


@pytest.mark.parametrize("memory", [None, 4])
def test_scale_of_loss_and_of_each_block_change_no_direction(memory):
    """Powers of two, so bit for bit: the loss by 8, one block by 1/4 (its gradient by 4)."""
    tx = equilibrium_sgd(1.0, P, measure_steps=3, memory=memory, blocks=BLOCKS)
    params, grads = tree(0), [tree(i) for i in range(1, 9)]
    found, _ = run(tx, params, grads)
    scaled = params | {"table": params["table"] / 4}
    scaled_found, _ = run(tx, scaled, [jax.tree.map(lambda g: 8 * g, g) for g in grads])
    for one, other in zip(found, scaled_found):
        assert_equal(other | {"table": other["table"] * 4}, one)


def test_blocks_without_gradient_or_norm_stay_and_start_with_their_first_gradient():
    tx = scale_to_equilibrium(P, measure_steps=1, blocks={"x": "x", "zero": "zero"})
    params = {"x": jnp.array([3.0, 4.0]), "zero": jnp.zeros(2)}
    nothing, something = dict.fromkeys(params, jnp.zeros(2)), dict.fromkeys(params, jnp.ones(2))
    state = tx.init(params)
    updates, state = tx.update(nothing, state, params)
    assert_equal(updates, nothing)
    updates, state = tx.update(something, state, params)
    np.testing.assert_allclose(numpy_norm(updates["x"]), 5 * np.sqrt(2 * P), rtol=1e-6)
    assert_equal(updates["zero"], jnp.zeros(2))


def test_state_is_three_numbers_a_block_and_none_a_parameter():
    params = tree(0)
    for blocks, numbers in ((None, 1), (BLOCKS, 4), (ROWS, 3 + 3 + 7)):
        blocks = jax.tree.map(lambda _: ROWS, params) if blocks is ROWS else blocks
        state = scale_to_equilibrium(P, blocks=blocks).init(params)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 1 + 3 * numbers
