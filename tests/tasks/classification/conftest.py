"""Sentences of a made-up language whose labels can be learnt, and a model that compiles fast."""

import pathlib

import jax
import numpy as np
import pytest

from sibert_jax.data.tokenizer import SPECIAL_PIECES
from sibert_jax.train.config import default_config
from sibert_jax.train.run import train

WORDS = tuple(f"w{i}" for i in range(43))


@pytest.fixture(scope="session")
def vocab(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_PIECES, *WORDS]) + "\n")
    return path


@pytest.fixture(scope="session")
def write_pairs(tmp_path_factory):
    """Writes pairs of random sentences with random labels, which only memory can tell."""
    directory = tmp_path_factory.mktemp("data")

    def write(name: str, labels, num_examples: int = 32, seed: int = 0) -> str:
        rng = np.random.default_rng(seed)
        rows = ["sentence1\tsentence2\tlabel"]
        for i in range(num_examples):
            texts = (" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(2))
            rows.append("\t".join([*texts, str(labels[i % len(labels)])]))
        path = directory / name
        path.write_text("\n".join(rows) + "\n")
        return str(path)

    return write


@pytest.fixture
def config(vocab):
    return make_config(vocab)


def make_config(vocab):
    """Two layers × 16, 48 WordPieces, batches of 8."""
    config = default_config("classification")
    config.task.dataset = "rte"
    config.model.vocab_size = 48
    config.model.max_len = 32
    config.model.width = 16
    config.model.ffn_width = 32
    config.data.vocab = str(vocab)
    config.data.seq_len = 32
    config.data.num_seq_lens = 1
    config.optim.learning_rate = 5e-2
    config.train.num_epochs = 30.0
    config.train.global_batch_size = 8
    config.train.log_every_steps = 10
    config.train.compilation_cache_dir = ""
    return config


def train_one(config, directory):
    """The loop on one device: eight take longer to compile for.

    optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids.
    """
    with jax.numpy_dtype_promotion("standard"):
        return train(config, directory, jax.devices()[:1])
