"""Two encoders, pretrained or fresh, six tasks, three seeds: 72 runs; a seed of all of it first."""

RATES = {"sibert": 1e-2, "bert": 1e-3}  # found by tune.py, the same for both starts
TASKS = ("sst2", "mrpc", "cola", "rte", "mnli", "squad")


def sweep():
    """The runs, the seeds outermost."""
    for seed in range(3):
        for task in TASKS:
            for arch, rate in RATES.items():
                for init_from in (f"runs/mini_{arch}", ""):
                    yield {
                        "panel": task,
                        "config": f"experiments/finetuning/config.py:task={task},arch={arch}",
                        "checkpoint.init_from": init_from,
                        "optim.learning_rate": rate,
                        "seed": seed,
                    }
