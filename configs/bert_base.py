"""BERT-base + AdamW, the baseline: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, A.2.

Command:  python -m sibert_jax.main --config=bert_base --workdir=runs/bert_base \
              --config.data.path='text/*.txt.xz' --config.data.vocab=vocab.txt
Stated by Li et al. 2022: pretraining loss 1.479.
"""

from sibert_jax.configs import sibert_base


def get_config():
    config = sibert_base.get_config()
    config.task.head = "tied"
    config.model.arch = "bert"
    config.optim.name = "adamw"
    config.optim.options = "eps=1e-6"
    config.optim.max_grad_norm = 1.0
    config.optim.head.name = "same"
    config.optim.learning_rate = 1e-4
    config.optim.weight_decay = 0.01
    config.optim.schedule = "linear"
    config.optim.warmup_steps = 10_000
    return config
