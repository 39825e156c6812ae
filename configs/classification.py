"""An encoder fine-tuned on your own labeled texts or pairs: classes or scores.

Command:  python -m sibert_jax.main --config=classification --workdir=runs/mine \
              --config.data.path=train.csv --config.data.text=question --config.data.label=type \
              --config.checkpoint.init_from=runs/mini
Variants: classification:arch=A,optim=O, as in configs/glue.py
Set here: as in configs/glue.py; `--config.task.kind=regression` for scores. Without
          `data.valid_path` a tenth of each class is held out.
"""

from sibert_jax.configs import glue
from sibert_jax.train.config import default_config


def get_config(variant: str = ""):
    return glue.with_variant(default_config("classification"), "classification", variant)
