"""SGD without state reaches AdamW's loss: equal tokens, three rates an arm, three seeds."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from experiments import arms, claims

# Seed 0 of each arm at each rate; then the middle rate (of four, the third) with the other seeds.
RATES = {
    "BERT, AdamW": (2e-3, 4e-3, 8e-3, 16e-3),
    "SIBERT, orthogonalized SGD": (1e-3, 2e-3, 4e-3, 8e-3),
    "SIBERT, plain SGD": (1e-3, 2e-3, 4e-3),
    "SIBERT, AdamW": (2e-3, 4e-3, 8e-3),
    "BERT, Muon": (5e-3, 1e-2, 2e-2),
    "PreNorm BERT, AdamW": (2e-3, 4e-3, 8e-3),
    "SIBERT, the paper's recipe": (1e-3, 3e-3, 9e-3),
    "SIBERT, SGD on spheres": (0.012, 0.024, 0.048),
    "SIBERT, Muon on spheres": (0.006, 0.012, 0.024),
    "BERT, AdamW, learned positions": (2e-3, 4e-3, 8e-3),
    "BERT, AdamW, random init": (2e-3, 4e-3, 8e-3),
}
BASELINE = "BERT, AdamW"
NUM_MAIN = 2  # arms that the verdict is about
SEEDS = {"minutes": 1, "hours": 3, "gpu": 3}


def points(scale: str) -> list[dict]:
    """The main arms at the middle rate, at the others, with other seeds; then the other arms.

    In this order a part of the runs compares all of them. At `minutes` there is one rate an arm.
    """
    found = []
    for part in (list(RATES)[:NUM_MAIN], list(RATES)[NUM_MAIN:]):
        seeds = [
            arms.arm_point(arm, middle(RATES[arm]), scale, seed)
            for seed in range(SEEDS[scale])
            for arm in part
        ]
        others = [
            arms.arm_point(arm, rate, scale)
            for arm in part
            for rate in RATES[arm]
            if rate != middle(RATES[arm])
        ]
        found += seeds if scale == "minutes" else seeds[: len(part)] + others + seeds[len(part) :]
    return found


def middle(rates: Sequence[float]) -> float:
    """The rate that has all seeds."""
    return rates[len(rates) // 2]


def best(lines: Sequence[dict]) -> dict[str, list[dict]]:
    """The runs of each arm at the rate whose seed 0 has the least loss."""
    found = {}
    for arm, runs in claims.by_arm(lines).items():
        key = arms.ARMS[arm][1]
        tuning = [
            run for run in runs if run["point"]["seed"] == 0 and arms.final_loss(run) is not None
        ]
        if tuning:
            rate = min(tuning, key=arms.final_loss)["point"][key]
            found[arm] = [run for run in runs if run["point"][key] == rate]
    return found


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Final loss against optimizer state, and curves, at each arm's best rate."""
    losses, curves = figure.subplots(1, 2)
    arms.loss_against_state(losses, best(lines))
    arms.draw_curves(curves, best(lines))


def compared(runs: dict[str, list[dict]]) -> list[list[str]]:
    """Each arm's loss less that of `BASELINE`, and Welch's t-test where both have several seeds."""
    losses = {arm: [arms.final_loss(run) for run in found] for arm, found in runs.items()}
    rows = []
    for arm, own in losses.items():
        base = losses.get(BASELINE, [])
        if arm == BASELINE or not base or None in own + base:
            continue
        p = "–"
        if min(len(own), len(base)) > 1:
            p = f"{scipy.stats.ttest_ind(own, base, equal_var=False).pvalue:.3f}"
        rows.append([arm, f"{np.mean(own) - np.mean(base):+.3f}", p])
    return rows


def table(lines: Sequence[dict]) -> str:
    """Best rate and losses, then their differences, then all rates of the tuning."""
    rows = []
    for arm, runs in claims.by_arm(lines).items():
        key = arms.ARMS[arm][1]
        cells = [
            f"{run['point'][key]:g}: {claims.spread([arms.final_loss(run)])}"
            for run in sorted(runs, key=lambda run: run["point"][key])
            if run["point"]["seed"] == 0
        ]
        rows.append([arm, key.removeprefix("optim."), ", ".join(cells)])
    tuning = claims.markdown(("arm", "rate", "loss at each rate, seed 0"), rows)
    header = ("arm", f"loss less that of {BASELINE}", "p (Welch)")
    differences = claims.markdown(header, compared(best(lines)))
    return f"{arms.loss_table(best(lines))}\n{differences}\n{tuning}"
