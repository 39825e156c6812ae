"""One arm on one task, with the budget that all arms share: 200 steps of 32 examples.

experiments/finetuning/config.py:task=T,arch=A,optim=O
T: sst2 · mrpc · cola · rte · mnli · squad; A: sibert · bert; O: paper · recipe (SIBERT only: SGD on
   its encoder)
"""

from sibert_jax.configs import glue, squad1

STEPS = 200
# Steps in an epoch of each training set, in batches of 32.
EPOCH = {"sst2": 2105, "mrpc": 128, "cola": 268, "rte": 78, "mnli": 917, "squad": 692}


def get_config(variant: str = "task=sst2,arch=sibert"):
    """Its settings, but for the learning rate and what the encoder starts from."""
    given = {"optim": "paper"} | dict(part.split("=") for part in variant.split(","))
    task, rest = given["task"], f"arch={given['arch']},optim={given['optim']}"
    if task == "squad":
        config = squad1.get_config(f"size=mini,{rest}")
        config.data.path = "parts/train-v1.1.json.xz"
        config.data.valid_path = "parts/dev-v1.1.json.xz"
    else:
        config = glue.get_config(f"task={task},{rest}")
        config.data.seq_len = 96
        config.data.test_path = ""
    config.model.num_segments = 1  # as configs/mini.py, also where the encoder starts fresh
    if task == "mrpc":  # with the labelled test set of the original corpus
        config.data.valid_path = "glue/MRPC/test.tsv*"
    if task == "mnli":  # a part of the training set, and every 4th pair of the other
        config.data.path = "glue/MNLI/train_part.tsv*"
        config.data.valid_path = "parts/MNLI/dev_matched.tsv.xz"
    config.data.num_seq_lens = 3  # fewer to compile
    config.train.num_epochs = STEPS / EPOCH[task]
    config.train.log_every_steps = 25
    config.train.eval_every_steps = 0  # before the first step and after the last
    config.train.eval_batches = 0  # the whole set
    return config
