"""A small BERT with its text, and a small SIBERT with its batches."""

import jax
import numpy as np
import pytest

from sibert_jax.tasks.pretraining.heads import StandardHead
from sibert_jax.tasks.task import EncoderWithHead
from tests.builders import model_config, random_params
from tests.inference.conftest import bert

__all__ = ["bert"]

CFG = model_config(arch="sibert_sandwich", vocab_size=30, width=8, ffn_width=12, max_len=8)
MODULE = EncoderWithHead(CFG, StandardHead(CFG, tied=False, nsp=False, log_frequency=()))


def make_batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens_BL = rng.integers(5, 30, (3, 8)).astype(np.int32)
    return {
        "tokens": tokens_BL,
        "segments": 0 * tokens_BL,
        "attention_mask": np.arange(8)[None] < np.array([[8], [5], [8]]),
        "masked_positions": rng.integers(0, 5, (3, 2)).astype(np.int32),
    }


BATCHES = [make_batch(seed) for seed in range(3)]


@pytest.fixture(scope="session")
def params() -> dict:
    """Of MODULE, and a kernel that no product uses."""
    found = random_params(MODULE.init, BATCHES[0], std=0.3)["params"]
    spare = {"kernel": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    return jax.tree.map(np.asarray, found) | {"head": found["head"] | {"spare": spare}}
