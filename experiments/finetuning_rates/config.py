"""One arm on one small task: `configs/glue.py` with three epochs in batches of 32.

experiments/finetuning_rates/config.py:task=T,arch=A,optim=O
T: snli · origin · author, in data/T/{train,dev}.tsv; A, O: as in configs/glue.py
"""

from sibert_jax.configs import glue

LIKE = {"snli": "mnli", "origin": "sst2", "author": "sst2"}


def get_config(variant: str):
    """Its settings, but for the rates and what the encoder starts from."""
    given = {"optim": "paper"} | dict(part.split("=") for part in variant.split(","))
    task = given["task"]
    config = glue.get_config(f"task={LIKE[task]},arch={given['arch']},optim={given['optim']}")
    config.data.path = f"data/{task}/train.tsv"
    config.data.valid_path = f"data/{task}/dev.tsv"
    config.data.test_path = ""
    config.data.seq_len = 32  # a longer text is cut
    config.data.num_seq_lens = 1  # one program to compile
    config.train.log_every_steps = 25
    config.train.eval_every_steps = 0  # before the first step and after the last
    config.checkpoint.every_steps = 100_000
    return config
