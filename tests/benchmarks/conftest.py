"""Runs that compile in seconds."""

import pydoc_data.topics

import jax
import pytest

from benchmarks import train_step


@pytest.fixture(autouse=True)
def _standard_promotion():
    """optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def tiny(tmp_path):
    """Makes runs of 5 steps of a small model."""
    topics = sorted(pydoc_data.topics.topics.values())[:40]
    text = tmp_path / "topics.txt"
    text.write_text("\n\n".join(" ".join(topic.split()) for topic in topics))

    def make(arch):
        config = train_step.model_config(arch, width=16, batch_size=8, vocab_size=512)
        config.data.source, config.data.path = "text", str(text)
        # Of 40 documents: some, whatever the version of Python says.
        config.data.valid_fraction = 0.25
        config.data.cache_dir = str(tmp_path / "cache")
        config.data.seq_len = config.model.max_len = 32
        config.train.num_steps, config.train.log_every_steps = 5, 2
        config.optim.warmup_steps = config.optim.head.warmup_steps = 0
        config.checkpoint.every_steps = 3
        return config

    return make


@pytest.fixture
def one_device():
    return jax.devices()[:1]
