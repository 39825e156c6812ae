"""ReLU-normalized attention as one operation with a custom backward pass."""

from sibert_jax.model.relu_attention.einsum import causal_mask
from sibert_jax.model.relu_attention.op import IMPLS, choose, relu_attention, relu_weights

__all__ = ["IMPLS", "causal_mask", "choose", "relu_attention", "relu_weights"]
