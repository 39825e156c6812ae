"""Floating-point operations of a model by formula, for utilization figures."""

from sibert_jax.model.config import ModelConfig


def encoder_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Forward and backward pass of the encoder, per token; a multiply-add counts 2.

    6 for each weight of a matrix product (2 forward, 4 backward), and 12·L·D a layer for the two
    products of the attention (scores and weighted values, each 2·L·D forward).
    """
    layer = 4 * cfg.width**2 + 2 * cfg.width * cfg.ffn_width
    stem = cfg.width**2 if cfg.is_sibert else 0
    return 6.0 * (cfg.depth * layer + stem) + 12.0 * cfg.depth * seq_len * cfg.width
