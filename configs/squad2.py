"""SIBERT-base fine-tuned on SQuAD 2.0 as in the paper: Li et al., ICML 2022, table 1.

Command:  python -m sibert_jax.main --config=squad2 --workdir=runs/squad2 \
              --config.checkpoint.init_from=runs/sibert_base
Variants: as in configs/squad1.py
Stated there: BERT with Adam, SIBERT with LAMB. F1 at base size: BERT 78.8, SIBERT
          74.8 (76.8 with the clip, 80.0 after twice as much pretraining).
Not stated there, and set here as in BERT (Devlin et al. 2019, §4.3): as in configs/squad1.py,
          but two epochs with batches of 48.
"""

from sibert_jax.configs import squad1


def get_config(variant: str = ""):
    config = squad1.get_config(variant)
    config.task.unanswerable = True
    config.data.path = "squad/train-v2.0.json"
    config.data.valid_path = "squad/dev-v2.0.json"
    config.train.num_epochs = 2.0
    config.train.global_batch_size = 48
    return config
