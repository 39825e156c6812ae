"""SIBERT-large; everything else as in configs/sibert_base.py.

Command:  python -m sibert_jax.main --config=sibert_large --workdir=runs/sibert_large \
              --config.data.path='text/*.txt.xz' --config.data.vocab=vocab.txt --config.mesh.fsdp=8
Variants: sibert_large:stateless (the default) · sibert_large:paper
Stated in the paper: pretraining loss 1.322 (1.404 without the clip, BERT + Adam 1.181).
"""

from sibert_jax.configs import sibert_base


def get_config(recipe: str = "stateless"):
    config = sibert_base.get_config(recipe)
    config.model.width = 1024
    config.model.depth = 24
    config.model.num_heads = 16
    config.model.ffn_width = 4096
    config.model.remat = True
    return config
