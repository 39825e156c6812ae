"""Encoders in Flax: SIBERT, its variants and BERT, from one set of modules."""

from sibert_jax.model.config import ARCHS, ModelConfig, is_scale_invariant
from sibert_jax.model.encoder import Encoder
from sibert_jax.model.flops import encoder_flops_per_token
from sibert_jax.model.norm import AffineNorm, normalise
from sibert_jax.model.placement import Rule, place, with_placement
from sibert_jax.model.relu_attention import relu_attention
from sibert_jax.model.reparametrize import reparametrize

__all__ = [
    "ARCHS",
    "AffineNorm",
    "Encoder",
    "ModelConfig",
    "Rule",
    "encoder_flops_per_token",
    "is_scale_invariant",
    "normalise",
    "place",
    "relu_attention",
    "reparametrize",
    "with_placement",
]
