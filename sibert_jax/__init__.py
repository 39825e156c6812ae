"""Train transformers robustly without an adaptive optimizer.

`sibert_jax.load(directory)` returns a trained model; JAX is imported on first use.
"""

from sibert_jax import lazy

__version__ = "0.1.0"

__getattr__ = lazy.attributes(__name__, {"load": "inference.load"})
