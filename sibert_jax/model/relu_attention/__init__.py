"""ReLU-normalized attention as one operation with a backward pass of its own."""

from sibert_jax.model.relu_attention.einsum import no_later
from sibert_jax.model.relu_attention.op import IMPLS, choose, relu_attention, relu_weights

__all__ = ["IMPLS", "choose", "no_later", "relu_attention", "relu_weights"]
