"""Mini encoders (2 layers × 128) on text files: SIBERT by the recipe, or BERT + AdamW.

Command:  python -m sibert_jax.main --config=mini:sibert --workdir=runs/mini \
              --config.data.path='text/*.txt'
Variants: mini:sibert (the default) · mini:bert
Results:  experiments/mini
"""

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config


def get_config(arch: str = "sibert"):
    config = default_config()
    config.task.nsp = False
    config.model.num_segments = 1
    config.data.source = "text"
    config.train.num_steps = 1200
    config.train.eval_every_steps = 100
    config.train.eval_batches = 32
    config.checkpoint.every_steps = 400
    match arch:
        case "sibert":
            config.optim.eta_lambda = 3.3e-3
            config.optim.head.learning_rate = 4e-3
            config.optim.head.warmup_steps = 60
        case "bert":
            config.model.arch = "bert"
            config.task.head = "tied"
            config.optim.name = "adamw"
            config.optim.options = "eps=1e-6"
            config.optim.max_grad_norm = 1.0
            config.optim.head.name = "same"
            config.optim.eta_lambda = 0.0
            config.optim.learning_rate = 2e-3
            config.optim.weight_decay = 0.01
            config.optim.schedule = "linear"
            config.optim.warmup_steps = 120
        case _:
            raise ConfigError(f"configs/mini.py:{arch} is unknown; there are sibert and bert.")
    return config
