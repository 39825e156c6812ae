"""Random trees and single steps, as the tests of every transform need them."""

import jax
import jax.numpy as jnp
import numpy as np


def random_tree(seed, scale=1.0, shapes=(("w", (4, 6)), ("b", (6,)))):
    """Return normal leaves in float32 by name."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), jnp.float32) for k, s in shapes}


def numpy_norm(tree):
    """Return the norm of all leaves in float64."""
    return np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in jax.tree.leaves(tree)))


def first_update(tx, grads, params):
    """Return the updates and the state of a first step."""
    return tx.update(grads, tx.init(params), params)


def trained(tx, params, seeds, scale=1.0):
    """Return parameters and state after steps on random gradients, one for each seed."""
    state, update = tx.init(params), jax.jit(tx.update)
    shapes = [(k, x.shape) for k, x in params.items()]
    for seed in seeds:
        updates, state = update(random_tree(seed, scale, shapes), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def assert_equal(a, b):
    """Assert that two trees are equal bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, rtol=1e-6, atol=0.0):
    """Assert that two trees are equal up to rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), a, b)
