"""An encoder fine-tuned to tag every word of a sentence, such as named entities.

Command:  python -m sibert_jax.main --config=token_classification --workdir=runs/entities \
              --config.data.path=train.conll --config.data.valid_path=dev.conll \
              --config.checkpoint.init_from=runs/mini
Variants: token_classification:arch=A,optim=O, as in configs/glue.py
Set here: as in configs/glue.py. Not tuned for tagging.
"""

from sibert_jax.configs import glue
from sibert_jax.train.config import default_config


def get_config(variant: str = ""):
    return glue.with_variant(
        default_config("token_classification"), "token_classification", variant
    )
