"""A small encoder's sizes, and a batch with padding, for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model import ModelConfig
from tests.builders import model_config


@pytest.fixture
def cfg() -> ModelConfig:
    return model_config(vocab_size=60, width=32, ffn_width=64)


@pytest.fixture(scope="session")
def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    """tokens_BL, segments_BL, mask_BL of three sequences, one of them padded."""
    tokens_BL = np.random.default_rng(1).integers(0, 60, (3, 16)).astype(np.int32)
    segments_BL = np.repeat(np.arange(16)[None] >= 8, 3, axis=0).astype(np.int32)
    mask_BL = np.arange(16)[None] < np.array([10, 16, 16])[:, None]
    return tuple(map(jnp.asarray, (tokens_BL, segments_BL, mask_BL)))
