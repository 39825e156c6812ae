"""Mini encoders (2 layers × 128) on text files.

Command:  python -m sibert_jax.main --config=mini:sibert --workdir=runs/mini \
              --config.data.path='text/*.txt'
Variants: mini:sibert (the default: SGD without state on all parameters) · mini:paper (SGD on the
          encoder, LAMB on an untied head) · mini:bert · mini:bert_prenorm (AdamW)
Results:  experiments/headline
"""

from sibert_jax.configs import sibert_base
from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config


def get_config(arm: str = "sibert"):
    config = default_config()
    config.task.nsp = False
    config.model.num_segments = 1
    config.data.source = "text"
    config.train.num_steps = 1200
    config.train.eval_every_steps = 100
    config.train.eval_batches = 32
    config.checkpoint.every_steps = 400
    match arm:
        case "sibert":
            use_neighbors(config)
        case "paper":
            sibert_base.use_paper(config)
            config.optim.eta_lambda = 3.3e-3
            config.optim.head.learning_rate = 4e-3
            config.optim.head.warmup_steps = 60
        case "bert" | "bert_prenorm":
            use_bert(config, arm)
            config.optim.learning_rate = 2e-3
            config.optim.warmup_steps = 120
        case _:
            raise ConfigError(
                f"configs/mini.py:{arm} is unknown; there are sibert, paper, bert, bert_prenorm."
            )
    return config


def use_neighbors(config):
    """Sets rotary positions and a layer of local attention, so that short runs learn word order."""
    config.model.positions = "rotary"
    config.model.attention_window = 2
    config.model.global_attention_every = 2
    config.optim.eta_lambda = 4e-3
    config.optim.schedule = "linear"


def use_bert(config, arch: str = "bert"):
    """Sets BERT + AdamW (Devlin et al. 2019, A.2); the caller sets learning rate and warm-up."""
    config.model.arch = arch
    config.model.identity_init = False
    config.task.head = "tied"
    config.optim.name = "adamw"
    config.optim.options = "eps=1e-6"
    config.optim.blocks = "all"
    config.optim.max_grad_norm = 1.0
    config.optim.head.name = "same"
    config.optim.eta_lambda = 0.0
    config.optim.weight_decay = 0.01
    config.optim.schedule = "linear"
    config.optim.warmup_fraction = 0.0
