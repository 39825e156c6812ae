"""A small encoder's sizes and a batch with padding, for the tests of this folder."""

import jax
import jax.numpy as jnp
import pytest

from sibert_jax.model import ModelConfig


@pytest.fixture
def cfg() -> ModelConfig:
    return ModelConfig(
        arch="sibert",
        vocab_size=60,
        max_len=16,
        num_segments=2,
        width=32,
        depth=2,
        num_heads=2,
        ffn_width=64,
        qkv_bias=False,
        branch_scaling="depth",
        norm_eps=1e-6,
        dropout=0.0,
        init_std=0.02,
        dtype="float32",
        scan_layers=True,
        remat=False,
        attention_impl="auto",
    )


@pytest.fixture
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    """tokens_BL, segments_BL, valid_BL of three sequences, one of them padded."""
    tokens_BL = jax.random.randint(jax.random.key(1), (3, 16), 0, 60)
    segments_BL = jnp.zeros_like(tokens_BL).at[:, 8:].set(1)
    return tokens_BL, segments_BL, jnp.ones((3, 16), bool).at[0, 10:].set(False)
