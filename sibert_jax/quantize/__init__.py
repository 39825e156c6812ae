"""Quantizes weights to 2, 3, 4 or 8 bits, by rounding to nearest or SignRound."""

from sibert_jax import lazy

__getattr__ = lazy.attributes(
    __name__, {"Done": "model", "Settings": "settings", "quantize": "model"}
)
