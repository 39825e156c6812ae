"""The learning rate of each arm: three values on SST-2 with seed 0, and no other tuning."""

RATES = {"sibert": (1e-3, 3e-3, 1e-2), "bert": (3e-4, 1e-3, 3e-3)}  # LAMB, AdamW


def sweep():
    """Three runs for each of the four arms."""
    for arch, rates in RATES.items():
        for init_from in (f"runs/mini_{arch}", ""):
            for rate in rates:
                yield {
                    "panel": f"{arch}, {'pretrained' if init_from else 'from scratch'}",
                    "config": f"experiments/finetuning/config.py:task=sst2,arch={arch}",
                    "checkpoint.init_from": init_from,
                    "optim.learning_rate": rate,
                }
