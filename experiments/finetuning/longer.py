"""MNLI for 1,000 steps instead of 200, seed 0: does SIBERT learn it then?"""

ARMS = {
    ("sibert", "runs/mini_sibert"): (1e-3, 3e-3),
    ("sibert", ""): (1e-3, 3e-3),
    ("bert", "runs/mini_bert"): (3e-4,),
    ("bert", ""): (1e-3,),
}


def sweep():
    """Two rates for each start of SIBERT, one for BERT's."""
    for (arch, init_from), rates in ARMS.items():
        for rate in rates:
            yield {
                "panel": "mnli",
                "config": f"experiments/finetuning/config.py:task=mnli,arch={arch}",
                "checkpoint.init_from": init_from,
                "optim.learning_rate": rate,
                "train.num_epochs": 1000 / 917,
            }
