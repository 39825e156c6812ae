"""Fine-tuning runs that compile fast."""

import jax
import pytest

from sibert_jax.train.config import default_config
from sibert_jax.train.run import train


@pytest.fixture(scope="session")
def small_run():
    """Makes the config of a run of two layers of width 16, in batches of one length."""

    def make(task_name: str, vocab, vocab_size: int, seq_len: int):
        config = default_config(task_name)
        config.model.vocab_size, config.model.max_len = vocab_size, seq_len
        config.model.width, config.model.ffn_width = 16, 32
        config.data.vocab, config.data.seq_len, config.data.num_seq_lens = str(vocab), seq_len, 1
        config.train.num_epochs = 1.0
        config.train.eval_every_steps = 0
        config.train.compilation_cache_dir = ""
        return config

    return make


@pytest.fixture(scope="session")
def train_one():
    """Trains on one device: eight take longer to compile for."""

    def run(config, directory):
        # optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            return train(config, directory, jax.devices()[:1])

    return run
