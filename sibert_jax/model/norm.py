"""Layer normalization without parameters (degree x -> 0) and with them (degree x -> 1)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


def normalize(x: jax.Array, eps: float, *, relative: bool = True) -> jax.Array:
    """Standardizes the last axis: the paper's N, degree x -> 0.

    (x − mean) / √(var + eps·mean(x²)). The guard is relative: it scales like the variance, so
    f(c·x) = f(x) exactly, which an added constant would break. `relative=False` is the usual
    √(var + eps), for BERT and GPT. Statistics are float32. An all-zero row gives zeros.

    Args:
      x: (..., D), any float dtype.
      eps: dimensionless, >= 0.
      relative: whether eps multiplies mean(x²) or is added as it is.

    Returns:
      (..., D) in the dtype of `x`.
    """
    return _normalize(x, eps, relative)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _normalize(x: jax.Array, eps: float, relative: bool) -> jax.Array:
    return _with_statistics(x, eps, relative)[0]


@_normalize.defjvp
def _(eps, relative, primals, tangents):
    """With y = (x − m)/s: dy = (dx − dm − y·(mean(y·dx)·(1 + eps) + eps·m·dm/s))/s.

    The backward pass needs y, which the next matrix product saves anyway, and two numbers per row.
    """
    (x,), (dx,) = primals, tangents
    y, inverse, mean = _with_statistics(x, eps, relative)
    y32, dx32 = y.astype(jnp.float32), dx.astype(jnp.float32)
    dmean = dx32.mean(axis=-1, keepdims=True)
    along_y = (y32 * dx32).mean(axis=-1, keepdims=True)
    if relative:
        along_y = (1 + eps) * along_y + eps * inverse * mean * dmean
    return y, ((dx32 - dmean - y32 * along_y) * inverse).astype(y.dtype)


def _with_statistics(x: jax.Array, eps: float, relative: bool):
    """Returns y in the dtype of `x`, 1/s (0 for an all-zero row) and m, each (..., 1) float32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(axis=-1, keepdims=True)
    centered = x32 - mean
    var = jnp.square(centered).mean(axis=-1, keepdims=True)
    # mean(x²) = var + mean² avoids a second pass over x.
    guarded = var + eps * (var + jnp.square(mean)) if relative else var + eps
    inverse = jnp.where(guarded > 0, jax.lax.rsqrt(jnp.where(guarded > 0, guarded, 1.0)), 0.0)
    return (centered * inverse).astype(x.dtype), inverse, mean


class AffineNorm(nn.Module):
    """Normalizes, then applies a learned gain and bias: degree x -> 1."""

    eps: float
    relative: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x32 = normalize(x, self.eps, relative=self.relative).astype(jnp.float32)
        # Reshape (D,) vectors explicitly, as implicit rank promotion may be forbidden.
        shape = (1,) * (x.ndim - 1) + scale.shape
        return (x32 * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)
