"""Two encoders, pretrained or fresh, six tasks, three seeds: 72 runs; a seed of all of it first."""

TASKS = ("sst2", "mrpc", "cola", "rte", "mnli", "squad")
# Found by tune.py, for each arm by itself: MNLI's own, and SST-2's for the others.
RATES = {
    "sibert": {"mnli": 1e-3, "others": 1e-2},
    "bert": {"mnli": 3e-4, "others": 1e-3},
}


def sweep():
    """The runs, the seeds outermost."""
    for seed in range(3):
        for task in TASKS:
            for arch, rates in RATES.items():
                for init_from in (f"runs/mini_{arch}", ""):
                    yield {
                        "panel": task,
                        "config": f"experiments/finetuning/config.py:task={task},arch={arch}",
                        "checkpoint.init_from": init_from,
                        "optim.learning_rate": rates["mnli" if task == "mnli" else "others"],
                        "seed": seed,
                    }
