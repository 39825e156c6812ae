"""SIBERT-base: Li et al., ICML 2022, https://arxiv.org/abs/2202.00980.

Command:  python -m sibert_jax.main --config=sibert_base --workdir=runs/sibert_base \
              --config.data.path='text/*.txt.xz' --config.data.vocab=vocab.txt
Variants: sibert_base:stateless (the default: SGD on all parameters, one norm per tensor, branches
          normalized at both ends, a tied head of degree 0; ours, tuned at mini size only) ·
          sibert_base:paper
Stated there, for sibert_base:paper: SGD without momentum or warm-up, η = 8e-4 divided by 10 at 600k
          and 900k of 1M steps, λ = 1e-2, C = 4; head under LAMB, peak 8e-4, 10k steps of warm-up,
          linear decay; truncated normal with std 0.02. Pretraining loss 1.580 (1.672 without the
          clip, BERT + Adam 1.479).
Not stated there, and set here as in BERT (Devlin et al. 2019): batch 256, length 128 (BERT has 512
          for the last tenth of the steps), dropout 0.1, 30,522 WordPieces, NSP, LAMB's β and decay.
          Ours: untied output table, no q/k/v biases, relative LayerNorm guard.
"""

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config


def get_config(recipe: str = "stateless"):
    config = default_config()
    config.model.vocab_size = 30_522
    config.model.max_len = 512
    config.model.width = 768
    config.model.depth = 12
    config.model.num_heads = 12
    config.model.ffn_width = 3072
    config.model.branch_scaling = "none"
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"
    config.data.source = "text"
    config.optim.eta_lambda = 8e-6  # the paper's
    config.train.num_steps = 1_000_000
    config.train.global_batch_size = 256
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 10_000
    config.train.eval_batches = 64
    config.checkpoint.every_steps = 5_000
    if recipe == "stateless":
        config.model.positions = "rotary"
    elif recipe == "paper":
        use_paper(config)
        config.task.unigram_prior = False
        config.optim.eta_lambda = 0.0
        config.optim.learning_rate = 8e-4
        config.optim.weight_decay = 1e-2
        config.optim.schedule = "piecewise"
        config.optim.head.learning_rate = 8e-4
        config.optim.head.warmup_steps = 10_000
    else:
        raise ConfigError(f"configs/sibert_base.py:{recipe} is unknown: stateless or paper.")
    return config


def use_paper(config):
    """Sets SGD with one norm on the encoder, LAMB on an untied head; the caller sets the rates."""
    config.task.head = "untied"
    config.model.arch = "sibert"
    config.model.identity_init = False
    config.optim.name = "scale_invariant_sgd"
    config.optim.blocks = "all"
    config.optim.warmup_fraction = 0.0
    config.optim.head.name = "lamb"
    config.optim.head.schedule = "linear"
