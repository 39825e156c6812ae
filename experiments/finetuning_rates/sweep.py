"""Four rates for each encoder, fresh or briefly pretrained, on five tasks, seed 0: 80 runs."""

RATES = {"sibert": (1e-3, 3e-3, 1e-2, 3e-2), "bert": (1e-4, 3e-4, 1e-3, 3e-3)}  # LAMB, AdamW


def sweep():
    """The runs, fresh encoders first."""
    for start in ("", "pretrained"):
        for task in ("origin", "sst2", "snli", "author", "qqp"):
            for arch, rates in RATES.items():
                for rate in rates:
                    yield {
                        "panel": f"{task}, {arch}{start and ', pretrained'}",
                        "config": f"experiments/finetuning_rates/config.py:task={task},arch={arch}",
                        "checkpoint.init_from": start and f"runs/mini_{arch}",
                        "optim.learning_rate": rate,
                    }
