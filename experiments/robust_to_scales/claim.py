"""Initial scale and scale of the loss do not matter: each by 1/100, 1 and 100."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import arms, claims

RATES = {
    "SIBERT, orthogonalized SGD": 1e-3,
    "SIBERT, plain SGD": 1e-3,
    "SIBERT, SGD on spheres": 0.024,
    "SIBERT, the paper's recipe": 3e-3,
    "BERT, AdamW": 2e-3,
    "BERT, SGD": 0.5,
}
SEEDS = {"minutes": 1, "hours": 3, "gpu": 1}
FACTORS = (0.01, 1.0, 100.0)
OF_PARAMETERS = tuple(f"parameters × {factor:g}" for factor in FACTORS)
OF_LOSS = ("loss × 0.01", OF_PARAMETERS[1], "loss × 100")


def points(scale: str) -> list[dict]:
    """Each arm at each scale of the parameters, and of the loss."""
    size, found = arms.small(scale), []
    for seed in range(SEEDS[scale]):  # outermost: a part of the runs compares all arms
        for arm, rate in RATES.items():
            for factor in FACTORS:
                found.append(arms.arm_point(arm, rate, size, seed, init_scale=factor))
                if factor != 1:
                    found.append(arms.arm_point(arm, rate, size, seed, task__loss_scale=factor))
    return found


def what(point: dict) -> str:
    """The scale of a point, in words."""
    if "task.loss_scale" in point:
        return f"loss × {point['task.loss_scale']:g}"
    return f"parameters × {point['init_scale']:g}"


def by_scale(runs: Sequence[dict]) -> dict[str, list[float]]:
    """Final losses at each scale, those that diverged left out."""
    found: dict[str, list[float]] = {}
    for run in runs:
        losses = found.setdefault(what(run["point"]), [])
        if arms.final_loss(run) is not None:
            losses.append(arms.final_loss(run))
    return found


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Final loss at each scale; the norms on the way."""
    losses, norms = figure.subplots(1, 2)
    for (arm, runs), color in zip(claims.by_arm(lines).items(), arms.COLORS):
        for part in (OF_PARAMETERS, OF_LOSS):
            found = by_scale(runs)
            shown = [(i, np.mean(found[name])) for i, name in enumerate(part) if found.get(name)]
            style = {"color": color, "marker": "o" if part is OF_PARAMETERS else "s"}
            label = arm if part is OF_PARAMETERS else None
            losses.plot(*zip(*shown), linestyle="-" if label else "--", label=label, **style)
        for run in runs[:5]:  # of seed 0
            curves = run["result"]["curves"]
            if "optim/param_norm" in curves and "init_scale" in run["point"]:
                norms.plot(*curves["optim/param_norm"], color=color, linewidth=1.5)
    losses.set_xticks(range(3), ["× 0.01", "× 1", "× 100"])
    losses.set_ylabel("evaluation loss at the end (nats a token)")
    losses.set_title("Solid: initial parameters; dashed: loss", loc="left")
    claims.legend(losses)
    norms.set(xlabel="step", ylabel="‖x‖ of encoder, or of all invariant parameters", yscale="log")


def table(lines: Sequence[dict]) -> str:
    """Final loss of each arm at each scale, and the spread."""
    names = (*OF_PARAMETERS, OF_LOSS[0], OF_LOSS[2])
    rows = []
    for arm, runs in claims.by_arm(lines).items():
        found = by_scale(runs)
        means = [np.mean(losses) for losses in found.values() if losses]
        width = f"{max(means) - min(means):.3f}" if means else "–"
        rows.append([arm, *(claims.spread(found.get(name, [])) for name in names), width])
    return claims.markdown(("arm", *names, "largest − least"), rows)
