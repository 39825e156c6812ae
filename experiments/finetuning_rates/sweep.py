"""Four rates for each encoder from fresh parameters on three tasks, seed 0: 24 runs."""

RATES = {"sibert": (1e-3, 3e-3, 1e-2, 3e-2), "bert": (1e-4, 3e-4, 1e-3, 3e-3)}  # LAMB, AdamW
TASKS = ("origin", "author", "snli")


def sweep():
    """The runs."""
    for task in TASKS:
        for arch, rates in RATES.items():
            for rate in rates:
                yield {
                    "panel": f"{task}, {arch}",
                    "config": f"experiments/finetuning_rates/config.py:task={task},arch={arch}",
                    "optim.learning_rate": rate,
                }
