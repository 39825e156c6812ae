"""SIBERT trained with SGD on the English documentation found on any machine with Python.

Command:  make demo
Hardware: 2 CPU cores
"""

from sibert_jax.configs import mini
from sibert_jax.train.config import default_config


def get_config():
    config = default_config()
    config.model.vocab_size = 4096
    config.model.num_segments = 1
    config.task.nsp = False
    config.data.seq_len = 64
    mini.use_neighbors(config)
    config.train.num_steps = 200
    config.train.log_every_steps = 10
    config.train.eval_every_steps = 50
    config.checkpoint.every_steps = 100
    return config
