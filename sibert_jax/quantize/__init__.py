"""Weights in 2, 3, 4 or 8 bits: rounded to nearest, or by signed gradient descent (SignRound)."""

from sibert_jax import lazy

__getattr__ = lazy.attributes(
    __name__, {"Done": "model", "Settings": "settings", "quantize": "model"}
)
