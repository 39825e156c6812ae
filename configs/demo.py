"""SIBERT trained with SGD on the English documentation found on any machine with Python.

Command:  make demo
Hardware: 2 CPU cores
"""

from sibert_jax.train.config import default_config


def get_config():
    config = default_config()
    config.model.vocab_size = 4096
    config.model.attention_window = 2  # as in configs/mini.py
    config.model.global_attention_every = 2
    config.optim.eta_lambda = 1e-3
    config.optim.schedule = "linear"
    config.train.num_steps = 600
    config.train.log_every_steps = 10
    config.train.eval_every_steps = 100
    config.checkpoint.every_steps = 200
    return config
