"""SGD-SaI against momentum SGD, AdamW and its control √size, over a grid of rate and decay."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import arms, claims

# Optimizer: its keys, and rates a factor of ten apart around those that its authors use.
OPTIMIZERS = {
    "SGD with momentum": ({"optim.name": "momentum"}, (1.0, 0.1, 0.01)),
    "AdamW": ({"optim.name": "adamw", "optim.options": "eps=1e-6"}, (1e-2, 1e-3, 1e-4)),
    "SGD-SaI": ({"optim.name": "sgd_sai"}, (1e-1, 1e-2, 1e-3)),
    "√size for the signal-to-noise ratio": (
        {"optim.name": "sgd_sai", "optim.options": "scaling=sqrt_size"},
        (1e-1, 1e-2, 1e-3),
    ),
}
DECAYS = {"minutes": (1e-2,), "hours": (1e-2, 1e-3), "gpu": (1e-2, 1e-3, 1e-4)}
MODELS = {
    "BERT": "BERT, AdamW",
    "SIBERT": "SIBERT, AdamW",
}


def points(scale: str) -> list[dict]:
    """The grid for each optimizer and model."""
    return [
        arms.arm_point(arm, rate, arms.small(scale), optim__weight_decay=decay)
        | {"optim.options": "", "optim.max_grad_norm": 0.0, "arm": f"{model}, {name}"}
        | keys
        for model, arm in MODELS.items()
        for name, (keys, rates) in OPTIMIZERS.items()
        for rate in (rates if scale != "minutes" else rates[1:2])
        for decay in DECAYS[scale]
    ]


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """All losses of the grid, an arm a row; the bar is their mean."""
    arms.final_losses(figure.subplots(), claims.by_arm(lines))


def table(lines: Sequence[dict]) -> str:
    """Best and mean over the grid, as the paper reports it, and bytes of state."""
    rows = []
    for arm, runs in claims.by_arm(lines).items():
        losses = [arms.final_loss(run) for run in runs]
        known = [loss for loss in losses if loss is not None]
        result = runs[0]["result"]
        rows.append(
            [
                arm,
                f"{min(known):.3f}" if known else "diverged",
                f"{np.mean(known):.3f} ± {np.std(known):.3f}" if known else "–",
                f"{len(losses) - len(known)} of {len(losses)}",
                f"{result['state_bytes'] / result['num_parameters']:.2f}",
            ]
        )
    header = ("arm", "best loss", "mean over the grid", "diverged", "state, bytes a parameter")
    return claims.markdown(header, rows)
