"""Two encoders, pretrained or fresh, six tasks, three seeds: 72 runs; a seed of all of it first."""

TASKS = ("sst2", "mrpc", "cola", "rte", "mnli", "squad")
# What tune.py found for each arm, an encoder and its start: on SST-2, and on MNLI for itself.
ARMS = {
    ("sibert", "runs/mini_sibert"): {"sst2": 1e-2, "mnli": 1e-3},
    ("sibert", ""): {"sst2": 1e-2, "mnli": 1e-3},
    ("bert", "runs/mini_bert"): {"sst2": 1e-3, "mnli": 3e-4},
    ("bert", ""): {"sst2": 1e-3, "mnli": 1e-3},
}


def sweep():
    """The runs, the seeds outermost."""
    for seed in range(3):
        for task in TASKS:
            for (arch, init_from), rates in ARMS.items():
                yield {
                    "panel": task,
                    "config": f"experiments/finetuning/config.py:task={task},arch={arch}",
                    "checkpoint.init_from": init_from,
                    "optim.learning_rate": rates["mnli" if task == "mnli" else "sst2"],
                    "seed": seed,
                }
