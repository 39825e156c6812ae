"""Rotary positions: queries and keys are rotated by angles proportional to their position."""

import jax
import jax.numpy as jnp

BASE = 10_000.0


def rotate(x_BLHK: jax.Array, position_BL: jax.Array) -> jax.Array:
    """Rotates each pair (x_i, x_{i+K/2}) by position·BASE^(−2i/K): degree x -> x.

    The product of a query and a key then depends only on their distance. Computed in float32.

    Args:
      x_BLHK: queries or keys, K even.
      position_BL: int, position of each token; or (1, L), the same in every row.

    Returns:
      An array with the shape and dtype of `x_BLHK`.

    References:
      Su et al. 2021, https://arxiv.org/abs/2104.09864; pairs as in GPT-NeoX and LLaMA.
    """
    half = x_BLHK.shape[-1] // 2
    rate_K = BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BL1K = position_BL.astype(jnp.float32)[:, :, None, None] * rate_K[None, None, None]
    cos, sin = jnp.cos(angle_BL1K), jnp.sin(angle_BL1K)
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BLHK.dtype)
