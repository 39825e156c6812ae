"""Left to right: GPT with SGD-SaI, its control, SGD, Muon and AdamW; scale-invariant GPT with SGD.

Round 1: a grid of six settings an arm, seed 0. Round 2: the best of them with more seeds, and, but
for the control, with the initial parameters, or the loss, times 1/100 and 100.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from experiments import arms, claims

Setting = tuple[float, float]  # rate, decay

GPT = {"config": "gpt:mini_adamw", "optim.options": "", "optim.max_grad_norm": 0.0}
SAI = GPT | {"optim.name": "sgd_sai"}
SIGPT = "scale-invariant GPT, orthogonalized SGD"
ADAMW, SGD_SAI, CONTROL = "GPT, AdamW", "GPT, SGD-SaI", "GPT, SGD-SaI with √size for g-SNR"

# Keys, rates, decays. Of scale-invariant GPT the rate is ηλ, the only number that it has.
ARMS = {
    ADAMW: ({"config": "gpt:mini_adamw"}, (1e-3, 3e-3, 1e-2), (0.1, 0.01)),
    "GPT, SGD with momentum": (GPT | {"optim.name": "momentum"}, (0.3, 1.0, 3.0), (1e-3, 1e-4)),
    SGD_SAI: (SAI, (3e-3, 1e-2, 3e-2), (1e-1, 1e-2)),
    CONTROL: (SAI | {"optim.options": "scaling=sqrt_size"}, (3e-3, 1e-2, 3e-2), (1e-1, 1e-2)),
    "GPT, Muon": (GPT | {"optim.name": "muon"}, (3e-3, 1e-2, 3e-2), (0.1, 0.01)),
    SIGPT: (
        {"config": "gpt:mini", "optim.schedule": "linear"},
        (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
        (0.0,),
    ),
}

SIZES = {
    "minutes": arms.SIZES["minutes"] | {"model.max_len": 64},
    "hours": arms.SIZES["small"] | {"model.vocab_size": 2048},
    "gpu": arms.SIZES["gpu"]
    | {
        "model.vocab_size": 50_257,
        "model.max_len": 1024,
        "data.seq_len": 1024,
        "data.tokenizer": "byte_bpe",
        "train.global_batch_size": 64,
        "train.num_steps": 5000,
    },
}
SEEDS = {"minutes": 1, "hours": 3, "gpu": 3}
SCALES = {
    "parameters × 0.01": {"init_scale": 0.01},
    "parameters × 100": {"init_scale": 100.0},
    "loss × 0.01": {"task.loss_scale": 0.01},
    "loss × 100": {"task.loss_scale": 100.0},
}
AS_IT_IS = "as it is"
TOP = 7.0  # of the picture; before training the loss is 7.4 to 7.6


def point(arm: str, setting: Setting, scale: str, seed: int = 0, **changes: float) -> dict:
    """A run of an arm."""
    keys, (rate, decay) = ARMS[arm][0], setting
    found = {"arm": arm, **keys, **SIZES[scale], **claims.text(scale), "seed": seed}
    if arm == SIGPT:
        return found | {"optim.eta_lambda": rate} | changes
    found |= {"optim.learning_rate": rate, "optim.weight_decay": decay}
    if arm == "GPT, Muon":  # of updates as large as AdamW's, which steps the tables and vectors
        found["optim.options"] = f"consistent_rms=0.2, adam_b2=0.95, adam_weight_decay={decay}"
    return found | changes


def grid(arm: str, scale: str) -> list[Setting]:
    """The settings of an arm; at `minutes` its middle rate alone."""
    _, rates, decays = ARMS[arm]
    if scale == "minutes":
        return [(rates[len(rates) // 2], decays[0])]
    return [(rate, decay) for rate in rates for decay in decays]


def points(scale: str) -> list[dict]:
    """Round 1: the grids."""
    return [point(arm, setting, scale) for arm in ARMS for setting in grid(arm, scale)]


def next_round(scale: str, lines: Sequence[dict]) -> list[dict]:
    """Round 2: the best setting of each arm with other seeds, then at other scales."""
    chosen = {arm: best_setting(arm, scale, lines) for arm in ARMS}
    seeds = range(1, SEEDS[scale])
    found = [point(arm, chosen[arm], scale, seed) for seed in seeds for arm in ARMS]
    scaled = list(SCALES.values()) if scale != "minutes" else [SCALES["parameters × 100"]]
    rescaled = (arm for arm in ARMS if arm != CONTROL)
    return found + [point(arm, chosen[arm], scale, **keys) for arm in rescaled for keys in scaled]


def best_setting(arm: str, scale: str, lines: Sequence[dict]) -> Setting:
    """The setting of least loss; while there is no result, the middle of the grid."""
    found = [
        line for line in tuning(lines) if line["point"]["arm"] == arm and arms.final_loss(line)
    ]
    return (
        setting(min(found, key=arms.final_loss))
        if found
        else grid(arm, scale)[len(grid(arm, scale)) // 2]
    )


def setting(line: dict) -> Setting:
    """Rate and decay of a run."""
    keys = line["point"]
    if "optim.eta_lambda" in keys:
        return keys["optim.eta_lambda"], 0.0
    return keys["optim.learning_rate"], keys["optim.weight_decay"]


def what(line: dict) -> str:
    """Which of SCALES a run has."""
    found = (name for name, keys in SCALES.items() if keys.items() <= line["point"].items())
    return next(found, AS_IT_IS)


def tuning(lines: Sequence[dict]) -> list[dict]:
    """The runs of round 1."""
    return [line for line in lines if line["point"]["seed"] == 0 and what(line) == AS_IT_IS]


def best(lines: Sequence[dict]) -> dict[str, list[dict]]:
    """The runs of each arm at its best setting, over the seeds."""
    found = {}
    for arm, runs in claims.by_arm(lines).items():
        known = [run for run in tuning(runs) if arms.final_loss(run) is not None]
        if known:
            chosen = setting(min(known, key=arms.final_loss))
            found[arm] = [run for run in runs if setting(run) == chosen and what(run) == AS_IT_IS]
    return found


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Losses of the grid; curves of the best; the best at other scales."""
    losses, curves, scales = figure.subplots(1, 3)
    arms.final_losses(losses, claims.by_arm(tuning(lines)))
    losses.set_title("All settings; the bar is their mean", loc="left")
    names = ["parameters × 0.01", "loss × 0.01", AS_IT_IS, "loss × 100", "parameters × 100"]
    for place, (arm, color) in enumerate(zip(claims.by_arm(lines), arms.COLORS)):
        found = best(lines).get(arm, [])
        if found:
            evaluated = found[0]["result"]["curves"]["eval/loss"]
            curves.plot(*evaluated, color=color, linewidth=2)
        if arm == CONTROL:  # not rescaled
            continue
        for i, name in enumerate(names):
            values = at_scales(arm, lines)[name]
            x, y = i + 0.12 * (place - 2.5), mean(values)
            if values and (y is None or y > TOP):
                scales.plot(x, TOP, "^", color=color, markersize=8)
            elif values:
                scales.plot(x, y, "o", color=color, markersize=8)
    curves.set(xlabel="step", ylabel="evaluation loss (nats per token)")
    curves.set_title("The best setting of each, in the same colors", loc="left")
    scales.set_xticks(range(len(names)), [name.replace(" × ", "\n× ") for name in names])
    scales.set_ylabel(arms.LOSS)
    scales.set_title(f"▲ above {TOP:g}, or diverged", loc="left")


def at_scales(arm: str, lines: Sequence[dict]) -> dict[str, list[float | None]]:
    """Losses of an arm's best setting, as it is and at each of SCALES."""
    own = best(lines).get(arm, [])
    found = {AS_IT_IS: [arms.final_loss(run) for run in own], **{name: [] for name in SCALES}}
    for run in lines:
        is_same = own and run["point"]["arm"] == arm and setting(run) == setting(own[0])
        if is_same and what(run) != AS_IT_IS:
            found[what(run)].append(arms.final_loss(run))
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that did not diverge; None: all did."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(lines: Sequence[dict]) -> str:
    """The claims of SGD-SaI, then other scales, then the grids."""
    found, rows = best(lines), []
    base = [arms.final_loss(run) for run in found.get(ADAMW, [])]
    for arm, runs in claims.by_arm(lines).items():
        own = [arms.final_loss(run) for run in found.get(arm, [])]
        less = f"{mean(own) - mean(base):+.3f}" if own and base else "–"
        if arm != ADAMW and min(len(own), len(base)) > 1 and None not in own + base:
            p = scipy.stats.ttest_ind(own, base, equal_var=False).pvalue
            less += f" (p {p:.2g})"
        over_grid = [arms.final_loss(run) for run in tuning(runs)]
        result = runs[0]["result"]
        state = f"{result['state_bytes'] / result['num_parameters']:.2f}"
        rows.append([arm, claims.spread(own), less, claims.spread(over_grid), state])
    header = ("arm", "loss, best setting", "less AdamW's", "mean over the grid")
    parts = [claims.markdown((*header, "state, bytes a parameter"), rows)]
    rows = []
    for arm in claims.by_arm(lines):
        losses = [claims.spread(values) for values in at_scales(arm, lines).values()]
        rows.append([arm, *losses])
    parts.append(claims.markdown(("arm, best setting", AS_IT_IS, *SCALES), rows))
    rows = []
    for arm, runs in claims.by_arm(tuning(lines)).items():
        cells = (
            f"{setting(run)[0]:g}, {setting(run)[1]:g}: {claims.spread([arms.final_loss(run)])}"
            for run in runs
        )
        rows.append([arm, "; ".join(cells)])
    parts.append(claims.markdown(("arm", "rate, decay: loss with seed 0"), rows))
    return "\n".join(parts)
