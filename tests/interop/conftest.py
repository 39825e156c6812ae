"""A small model of each kind, as the tests of the exchange formats need it."""

import jax
import numpy as np
import pytest

from sibert_jax.model import Encoder, ModelConfig
from tests.builders import model_config


@pytest.fixture(scope="session")
def cfg() -> ModelConfig:
    return model_config(
        arch="bert",
        vocab_size=50,
        width=12,
        depth=3,
        num_heads=3,
        ffn_width=20,
        qkv_bias=True,
        norm_eps=1e-12,
        init_std=0.1,
    )


@pytest.fixture(scope="session")
def encoder_params():
    """Random parameters of an encoder, biases and gains too."""

    def make(cfg: ModelConfig):
        tokens = jax.ShapeDtypeStruct((1, 4), "int32")
        valid = jax.ShapeDtypeStruct((1, 4), "bool")
        shapes = jax.eval_shape(Encoder(cfg).init, jax.random.key(0), tokens, tokens, valid)
        rng = np.random.default_rng(0)
        return {
            "encoder": jax.tree.map(
                lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"]
            )
        }

    return make
