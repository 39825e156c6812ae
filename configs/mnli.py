"""SIBERT-base fine-tuned on MNLI as in the paper: Li et al., ICML 2022, table 1.

Command:  python -m sibert_jax.main --config=mnli --workdir=runs/mnli \
              --config.checkpoint.init_from=runs/sibert_base
Stated there: LAMB on the whole model; accuracy 81.1 (82.6 with the clip), BERT + Adam 84.4.
Not stated there, and set here as in BERT (Devlin et al. 2019, A.3): batch 32, three epochs, 10 %
          warm-up, linear decay, dropout 0.1. The learning rate is ours.
"""

from sibert_jax.configs import glue, sibert_base


def get_config():
    config = glue.get_config("task=mnli")
    config.model = sibert_base.get_config().model
    config.model.arch = None  # from `init_from`: the paper's encoder or ours
    config.optim.learning_rate = 1e-4
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 5_000
    config.checkpoint.every_steps = 5_000
    return config
