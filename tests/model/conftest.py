"""A small encoder's sizes and a batch with padding, for the tests of this folder."""

import jax
import jax.numpy as jnp
import pytest

from sibert_jax.model import ModelConfig
from tests.builders import model_config


@pytest.fixture
def cfg() -> ModelConfig:
    return model_config(vocab_size=60, width=32, ffn_width=64)


@pytest.fixture
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    """tokens_BL, segments_BL, mask_BL of three sequences, one of them padded."""
    tokens_BL = jax.random.randint(jax.random.key(1), (3, 16), 0, 60)
    segments_BL = jnp.zeros_like(tokens_BL).at[:, 8:].set(1)
    return tokens_BL, segments_BL, jnp.ones((3, 16), bool).at[0, 10:].set(False)
