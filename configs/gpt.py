"""Causal language models on text files.

Command:  python -m sibert_jax.main --config=gpt --workdir=runs/gpt \
              --config.data.path='text/*.txt'
Variants: gpt:mini (the default: 2 layers × 128, scale invariant, SGD without state) ·
          gpt:mini_adamw (GPT-2's block at that size, AdamW) · gpt:small (12 × 768, scale
          invariant) · gpt:small_adamw (GPT-2 of 124 M parameters, AdamW)
Stated by Radford et al. 2019 for gpt:small_adamw: 12 layers × 768, 12 heads, 1,024 tokens, 50,257
          tokens in the vocabulary, matrices with std 0.02, those that end a branch with
          0.02/√(2·depth), batch 512.
Not stated there, and set here as in other reproductions of it: AdamW with β = 0.9, 0.95, decay 0.1,
          clip 1, learning rate 6e-4, 2,000 steps of warm-up. Not tuned at this size yet: the rates
          of gpt:small, which are those of gpt:mini.
"""

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config

VARIANTS = ("mini", "mini_adamw", "small", "small_adamw")


def get_config(variant: str = "mini"):
    if variant not in VARIANTS:
        raise ConfigError(f"configs/gpt.py:{variant} is unknown; there are {', '.join(VARIANTS)}.")
    config = default_config("causal_lm")
    config.data.source = "text"
    if variant.startswith("mini"):
        config.train.num_steps = 1200
        config.train.eval_every_steps = 100
        config.train.eval_batches = 32
        config.checkpoint.every_steps = 400
    else:
        use_small(config)
    if variant.endswith("adamw"):
        use_gpt2(config)
        config.optim.learning_rate = 2e-3 if variant == "mini_adamw" else 6e-4
        config.optim.warmup_fraction = 0.1 if variant == "mini_adamw" else 0.02
    else:
        config.model.positions = "rotary"
    return config


def use_small(config):
    """Sets the sizes of GPT-2's smallest model."""
    config.model.vocab_size = 50_257
    config.data.tokenizer = "byte_bpe"
    config.model.max_len = 1024
    config.model.width = 768
    config.model.depth = 12
    config.model.num_heads = 12
    config.model.ffn_width = 3072
    config.model.dtype = "bfloat16"
    config.data.seq_len = 1024
    config.train.num_steps = 100_000
    config.train.global_batch_size = 512
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 1000
    config.train.eval_batches = 64


def use_gpt2(config):
    """Sets GPT-2's block and AdamW; the caller sets learning rate and warm-up."""
    config.model.arch = "gpt"
    config.model.identity_init = False
    config.task.head = "tied"
    config.optim.name = "adamw"
    config.optim.options = "b2=0.95"
    config.optim.blocks = "all"
    config.optim.max_grad_norm = 1.0
    config.optim.head.name = "same"
    config.optim.eta_lambda = 0.0
    config.optim.weight_decay = 0.1
    config.optim.schedule = "cosine"
