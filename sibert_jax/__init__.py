"""Train transformers robustly without an adaptive optimizer.

`sibert_jax.load(directory)` is a trained model; it imports JAX when it is first used.
"""

from sibert_jax import lazy

__version__ = "0.1.0"

__getattr__ = lazy.attributes(__name__, {"load": "inference.load"})
