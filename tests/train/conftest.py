"""A tiny run on real English: text of Python's own documentation, a model that compiles fast."""

import pathlib
import pydoc_data.topics

import jax
import numpy as np
import pytest

from sibert_jax.configs import sibert_base
from sibert_jax.data import PretrainingBatches
from sibert_jax.train.config import default_config
from sibert_jax.train.run import train


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> pathlib.Path:
    """About 200 kB: a paragraph a line, a blank line between documents."""
    documents = []
    for topic in sorted(pydoc_data.topics.topics.values())[:60]:
        paragraphs = [" ".join(part.split()) for part in topic.split("\n\n")]
        documents.append("\n".join(part for part in paragraphs if len(part) > 40))
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(text, cache):
    return make_config(text, cache)


def make_config(text: pathlib.Path, cache: pathlib.Path):
    """Two layers × 16, 512 WordPieces, length 32, batch 8."""
    config = default_config()
    config.task.nsp = False
    config.model.vocab_size = 512
    config.model.max_len = 32
    config.model.num_segments = 1
    config.model.width = 16
    config.model.ffn_width = 32
    config.data.source = "text"
    config.data.path = str(text)
    config.data.valid_fraction = 0.25  # of 60 documents: some, whatever the version of Python says
    config.data.cache_dir = str(cache)
    config.data.seq_len = 32
    sibert_base.use_paper(config)
    # Given, so that no program has to be compiled to find them.
    config.optim.update(eta_lambda=0.0, learning_rate=0.3, weight_decay=0.01)
    config.train.num_steps = 12
    config.train.global_batch_size = 8
    config.train.log_every_steps = 4
    config.train.eval_every_steps = 6
    config.train.eval_batches = 2
    config.train.compilation_cache_dir = ""
    config.checkpoint.every_steps = 5
    return config


@pytest.fixture
def plain(config):
    """On one device, of a model and an optimizer that compile in half the time of the others."""
    config.model.update(arch="bert", depth=1)
    config.optim.update(name="adamw", learning_rate=1e-3, schedule="constant")
    config.optim.head.name = "same"
    config.mesh.data = 1
    return config


@pytest.fixture
def poison(monkeypatch):
    """Gives the training batches of some indices a weight that is not a number."""
    original, poisoned = PretrainingBatches.batch, set()

    def batch(self, step, rows):
        made = original(self, step, rows)
        if step in poisoned:
            made["masked_weights"] = made["masked_weights"] * np.float32(np.nan)
        return made

    monkeypatch.setattr(PretrainingBatches, "batch", batch)
    return poisoned.update


@pytest.fixture(autouse=True)
def _standard_promotion():
    """optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def train_one():
    """The loop on one device: eight take longer to compile for."""

    def train_one(config, directory, **options):
        with jax.numpy_dtype_promotion("standard"):
            return train(config, directory, jax.devices()[:1], **options)

    return train_one
