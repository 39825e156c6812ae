"""SIBERT-base fine-tuned on SQuAD 1.1 as in the paper: Li et al., ICML 2022, table 1.

Command:  python -m sibert_jax.main --config=squad1 --workdir=runs/squad1 \
              --config.checkpoint.init_from=runs/sibert_base
Variants: squad1:size=S,arch=A,optim=O
          S: base (the default) · mini (an encoder of any size in `init_from`; windows for one
             with 128 tokens, as in configs/mini.py)
          A: sibert (the default) · bert
          O: paper (the default: LAMB on all of SIBERT, AdamW on BERT) ·
             recipe (SIBERT only: SGD on the encoder, LAMB on the head) ·
             stateless (SIBERT only: SGD on all parameters, a head of degree 0; not tuned)
Stated there: BERT with Adam, SIBERT with LAMB. F1 at base size: BERT 90.3, SIBERT
          88.1 (89.3 with the clip, 90.3 after twice as much pretraining).
Not stated there, and set here as in BERT (Devlin et al. 2019, §4.2, A.3 and its code): windows of
          384 tokens 128 apart, questions up to 64, answers up to 30, batch 32, three epochs,
          10 % warm-up, linear decay, BERT's learning rate 5e-5, dropout 0.1. SIBERT's are ours.
"""

from sibert_jax.configs import bert_base, glue, sibert_base
from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config

CHOICES = {
    "size": ("base", "mini"),
    "arch": ("sibert", "bert"),
    "optim": tuple(glue.OPTIMIZERS),
}


def get_config(variant: str = ""):
    choice = parse(variant)
    config = default_config("question_answering")
    config.train.global_batch_size = 32
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 1_000
    config.train.eval_batches = 64
    if choice["size"] == "mini":
        use_mini(config)
    if choice["arch"] == "bert":
        glue.use_bert(config)
    glue.OPTIMIZERS[choice["optim"]](config)
    if choice["size"] == "base":
        base = bert_base if choice["arch"] == "bert" else sibert_base
        config.model = base.get_config().model
        if choice["arch"] == "sibert":
            # From `init_from`: the paper's encoder or ours.
            config.model.arch = config.model.positions = None
        if choice["optim"] == "paper":
            config.optim.learning_rate = 5e-5 if choice["arch"] == "bert" else 1e-4
    return config


def parse(variant: str) -> dict[str, str]:
    """Parses a variant such as "size=mini,arch=bert", adding defaults."""
    choice = {name: values[0] for name, values in CHOICES.items()}
    for part in filter(None, variant.split(",")):
        name, _, value = part.partition("=")
        if value not in CHOICES.get(name, ()):
            allowed = ", ".join(f"{name}={'|'.join(values)}" for name, values in CHOICES.items())
            raise ConfigError(f"configs/squad1.py: {part!r} is unknown; there are {allowed}.")
        choice[name] = value
    if choice["arch"] == "bert" and choice["optim"] != "paper":
        raise ConfigError(
            f"configs/squad1.py: optim={choice['optim']} is for arch=sibert, not for bert."
        )
    return choice


def use_mini(config):
    config.task.max_query_len = 32
    config.task.doc_stride = 64
