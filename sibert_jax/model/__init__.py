"""Encoders in Flax: SIBERT, its variants, BERT and GPT, from one set of modules."""

from sibert_jax.model.config import ARCHS, ModelConfig
from sibert_jax.model.constraints import ShardingRules, constrain, with_sharding_rules
from sibert_jax.model.encoder import Encoder, encoder_flops_per_token
from sibert_jax.model.layers import square_init
from sibert_jax.model.norm import AffineNorm, normalize
from sibert_jax.model.relu_attention import relu_attention
from sibert_jax.model.reparametrize import reparametrize

__all__ = [
    "ARCHS",
    "AffineNorm",
    "Encoder",
    "ModelConfig",
    "ShardingRules",
    "constrain",
    "encoder_flops_per_token",
    "normalize",
    "relu_attention",
    "reparametrize",
    "square_init",
    "with_sharding_rules",
]
