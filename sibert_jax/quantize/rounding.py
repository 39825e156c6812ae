"""Rounds a matrix to the grid of its groups, with tunable parameters ("knobs").

Notation: interop/quantized.

With w a weight of a group, b bits, V in [−1/2, 1/2] per weight and α, β in [0, 1] per group:

  asymmetric: s = (α·max(w, 0) − β·min(w, 0))/(2^b − 1), z = round(−β·min(w, 0)/s)
  symmetric:  s = −e/2^(b−1), z = 2^(b−1), with e the larger of α·max(w, 0) and −β·min(w, 0), with
              its sign: of the two ends of the grid the farther one, −2^(b−1), is on it
  code = clip(round(w/s + V) + z, 0, 2^b − 1);  w̃ = s·(code − z)

V = 0 and α = β = 1 round to the nearest point. Rounding has the gradient of the identity, the clip
the gradient 1 inside its range and at its ends (Cheng et al., arXiv 2309.05516, equations 1 to 3;
the symmetric grid is that of the authors' code).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.interop.quantized import Form, Quantized


@jax.custom_jvp
def round_straight_through(x: jax.Array) -> jax.Array:
    """Rounds, half to even, with the gradient of the identity."""
    return jnp.round(x)


round_straight_through.defjvps(lambda tangent, answer, x: tangent)


class Knobs(NamedTuple):
    """The tunable parameters of a matrix.

    Attributes:
      v_OGJ: offset of a weight before rounding, in [−1/2, 1/2].
      alpha_OG: factor on the largest weight of a group, in [0, 1].
      beta_OG: factor on the smallest weight, in [0, 1].
    """

    v_OGJ: jax.Array
    alpha_OG: jax.Array
    beta_OG: jax.Array

    @classmethod
    def nearest(cls, form: Form) -> "Knobs":
        """Returns the knobs of rounding to nearest."""
        shape = form.grouped_shape
        ones = np.ones(shape[:2], np.float32)
        return cls(np.zeros(shape, np.float32), ones, ones)


LOWER, UPPER = Knobs(-0.5, 0.0, 0.0), Knobs(0.5, 1.0, 1.0)


class Rounded(NamedTuple):
    """Rounded weights: codes, scales and zero points, float32."""

    codes_OGJ: jax.Array
    scale_OG: jax.Array
    zero_OG: jax.Array

    def values(self) -> jax.Array:
        """Returns w̃, (O, G, J)."""
        return self.scale_OG[..., None] * (self.codes_OGJ - self.zero_OG[..., None])


def rounded(w_OGJ: jax.Array, knobs: Knobs, form: Form) -> Rounded:
    """Rounds a matrix, differentiably in the knobs.

    Args:
      w_OGJ: float32, the grouped matrix.
      knobs: knobs within their ranges.
      form: bits, and whether the grid is symmetric.
    """
    top = 2.0**form.bits - 1
    high_OG = knobs.alpha_OG * jnp.maximum(w_OGJ.max(axis=-1), 0.0)
    low_OG = knobs.beta_OG * jnp.minimum(w_OGJ.min(axis=-1), 0.0)
    if form.symmetric:
        half = 2.0 ** (form.bits - 1)
        scale_OG = jnp.where(high_OG >= -low_OG, -high_OG, -low_OG) / half
        scale_OG = jnp.where(scale_OG == 0, 1.0, scale_OG)
        zero_OG = jnp.full_like(scale_OG, half)
    else:
        scale_OG = (high_OG - low_OG) / top
        scale_OG = jnp.where(scale_OG == 0, 1.0, scale_OG)
        zero_OG = round_straight_through(-low_OG / scale_OG)
    steps_OGJ = round_straight_through(w_OGJ / scale_OG[..., None] + knobs.v_OGJ)
    codes_OGJ = steps_OGJ + zero_OG[..., None]
    # Unlike jnp.clip, this keeps the full gradient at the ends of the grid, common at 2 bits.
    is_inside = (codes_OGJ >= 0) & (codes_OGJ <= top)
    codes_OGJ = jnp.where(is_inside, codes_OGJ, jnp.where(codes_OGJ < 0, 0.0, top))
    return Rounded(codes_OGJ, scale_OG, zero_OG)


def quantized(w: np.ndarray, form: Form, knobs: Knobs | None = None) -> Quantized:
    """Returns the quantized form of a tensor.

    Args:
      w: float32, shape `form.shape`.
      form: bits and groups.
      knobs: None: round to nearest.
    """
    knobs = Knobs.nearest(form) if knobs is None else knobs
    found = jax.device_get(_rounded(jnp.asarray(form.grouped(np.asarray(w))), knobs, form))
    codes, zero = (part.astype(np.uint8) for part in (found.codes_OGJ, found.zero_OG))
    return Quantized(form, codes, found.scale_OG, zero)


_rounded = jax.jit(rounded, static_argnums=2)
