"""Scale invariance for any network: f(R·x/‖x‖) in place of f(x) (cf. arXiv 2202.00980)."""

import math

import jax
import jax.numpy as jnp

# Variance of a unit normal truncated at ±2, which the initializers draw from.
TRUNCATED_VARIANCE = 0.7737413


def reparametrize(params, init_std: float):
    """Projects all leaves jointly onto the sphere of radius R, the expected initial norm.

    Args:
      params: float32 pytree; leaves named "scale" start at 1, "bias" at 0, others at init_std.
      init_std: standard deviation of the truncated normal initializer.

    Returns:
      R·params/‖params‖, of degree 0 in `params`; R depends only on shapes and `init_std`.
    """
    square_radius = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        match path[-1].key:
            case "scale":
                square_radius += leaf.size
            case "bias":
                pass
            case _:
                square_radius += leaf.size * TRUNCATED_VARIANCE * init_std**2
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)))
    return jax.tree.map(lambda leaf: leaf * (math.sqrt(square_radius) / norm), params)
