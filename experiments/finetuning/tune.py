"""The learning rate of each arm: four values on SST-2 and on MNLI with seed 0, no other tuning."""

RATES = {"sibert": (1e-3, 3e-3, 1e-2, 3e-2), "bert": (1e-4, 3e-4, 1e-3, 3e-3)}  # LAMB, AdamW


def sweep():
    """Four runs for each of the four arms on each of the two tasks."""
    for task in ("sst2", "mnli"):
        for arch, rates in RATES.items():
            for init_from in (f"runs/mini_{arch}", ""):
                for rate in rates:
                    yield {
                        "panel": f"{task}, {arch}, {'pretrained' if init_from else 'from scratch'}",
                        "config": f"experiments/finetuning/config.py:task={task},arch={arch}",
                        "checkpoint.init_from": init_from,
                        "optim.learning_rate": rate,
                    }
