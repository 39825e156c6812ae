"""An encoder of any size fine-tuned on a GLUE task; a fresh mini one without `init_from`.

Command:  python -m sibert_jax.main --config=glue:task=sst2 --workdir=runs/sst2 \
              --config.checkpoint.init_from=runs/mini
Variants: glue:task=T,arch=A,optim=O
          T: cola · sst2 (the default) · mrpc · qqp · stsb · mnli · qnli · rte · wnli
          A: sibert (the default) · bert
          O: paper (the default: LAMB on all of SIBERT, AdamW on BERT) ·
             recipe (SIBERT only: SGD on the encoder, LAMB on the head) ·
             stateless (SIBERT only: SGD on all parameters, a head of degree 0; not tuned)
Stated by Li et al. 2022: BERT is fine-tuned with Adam, SIBERT with LAMB. Set here: 10 % warm-up,
          linear decay and three epochs, as in BERT (Devlin et al. 2019, A.3), and the learning
          rates: 1e-2 for SIBERT with LAMB, 3e-4 for BERT with AdamW, chosen from four values each
          on small tasks, most not in GLUE (experiments/finetuning_rates). At 1e-3 SIBERT barely
          learns.
"""

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import default_config

# Training, evaluation and further sets: GLUE's own files below glue/, see docs/data.md.
FILES = {
    "cola": ("CoLA/train", "CoLA/dev", ""),
    "sst2": ("SST-2/train", "SST-2/dev", ""),
    "mrpc": ("MRPC/train", "MRPC/dev", ""),
    "qqp": ("QQP/train", "QQP/dev", ""),
    "stsb": ("STS-B/train", "STS-B/dev", ""),
    "mnli": ("MNLI/train", "MNLI/dev_matched", "MNLI/dev_mismatched"),
    "qnli": ("QNLI/train", "QNLI/dev", ""),
    "rte": ("RTE/train", "RTE/dev", ""),
    "wnli": ("WNLI/train", "WNLI/dev", ""),
}


def get_config(variant: str = "task=sst2"):
    parts = [part for part in variant.split(",") if part]
    tasks = [part.removeprefix("task=") for part in parts if part.startswith("task=")] or ["sst2"]
    rest = ",".join(part for part in parts if not part.startswith("task="))
    if tasks[0] not in FILES:
        raise ConfigError(
            f"configs/glue.py: task={tasks[0]} is unknown; choose one of {list(FILES)}."
        )
    config = default_config("classification")
    config.task.dataset = tasks[0]
    paths = [f"glue/{name}.tsv*" if name else "" for name in FILES[tasks[0]]]
    config.data.path, config.data.valid_path, config.data.test_path = paths
    return with_variant(config, "glue", rest)


def with_variant(config, name: str, variant: str):
    """Applies the architecture and the optimizer of "arch=A,optim=O" to a fine-tuning config."""
    given = dict(part.partition("=")[::2] for part in variant.split(",") if part)
    choice = {"arch": "sibert", "optim": "paper"} | given
    allowed = {"arch": ("sibert", "bert"), "optim": tuple(OPTIMIZERS)}
    for key, value in choice.items():
        if key not in allowed:
            raise ConfigError(f"configs/{name}.py: {key!r} is unknown; there are {list(allowed)}.")
        if value not in allowed[key]:
            raise ConfigError(
                f"configs/{name}.py: {key}={value} is unknown; choose one of {list(allowed[key])}."
            )
    if choice["arch"] == "bert" and choice["optim"] != "paper":
        raise ConfigError(
            f"configs/{name}.py: optim={choice['optim']} is for arch=sibert, not for bert."
        )
    if choice["arch"] == "bert":
        use_bert(config)
    OPTIMIZERS[choice["optim"]](config)
    return config


def use_bert(config):
    config.model.arch = "bert"
    config.optim.name = "adamw"
    config.optim.options = "eps=1e-6"
    config.optim.learning_rate = 3e-4


def use_recipe(config):
    config.optim.name = "scale_invariant_sgd"
    config.optim.eta_lambda = 1e-4
    config.optim.learning_rate = 0.0
    config.optim.weight_decay = 0.0
    config.optim.warmup_fraction = 0.0
    config.optim.max_grad_norm = 0.0
    config.optim.head.name = "lamb"
    config.optim.head.learning_rate = 1e-2  # experiments/finetuning: 0.60 on SST-2, 0.52 with 1e-3


def use_stateless(config):
    config.task.head = "invariant"
    config.optim.name = "equilibrium_sgd"
    config.optim.blocks = "tensor"
    config.optim.eta_lambda = 1e-4
    config.optim.learning_rate = 0.0
    config.optim.weight_decay = 0.0
    config.optim.max_grad_norm = 0.0


OPTIMIZERS = {"paper": lambda config: None, "recipe": use_recipe, "stateless": use_stateless}
