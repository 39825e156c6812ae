"""BERT-base + AdamW, the baseline: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, A.2.

Command:  python -m sibert_jax.main --config=bert_base --workdir=runs/bert_base \
              --config.data.path='text/*.txt.xz' --config.data.vocab=vocab.txt
Stated by Li et al. 2022: pretraining loss 1.479.
"""

from sibert_jax.configs import mini, sibert_base


def get_config():
    config = sibert_base.get_config()
    mini.use_bert(config)
    config.model.positions = "learned"
    config.task.unigram_prior = False
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 10_000
    return config
