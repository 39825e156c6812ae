"""The clip acts rarely, and takes the spikes of norm and rotation away: C from 1.5 to infinity."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import arms, claims
from sibert_jax.report.figure import COLORS
from sibert_jax.report.run_folder import Run

FACTORS = {"minutes": (1.5, 4, "inf"), "hours": (1.5, 2, 4, 8, "inf")}
FACTORS["gpu"] = FACTORS["hours"]
SEEDS = {"minutes": 1, "hours": 3, "gpu": 1}
SETTINGS = {
    "minutes": {
        "config": "mini:paper",
        "model.vocab_size": 1024,
        "model.width": 32,
        "model.ffn_width": 128,
        "model.depth": 1,
        "data.seq_len": 64,
        "optim.eta_lambda": 2e-2,
        "optim.head.warmup_steps": 10,
        "train.num_steps": 300,
        "train.global_batch_size": 8,
        "train.log_every_steps": 1,
        "train.eval_every_steps": 100,
        "train.eval_batches": 8,
    },
    "hours": {
        "config": "mini:paper",
        **arms.SIZES["small"],
        "optim.head.warmup_steps": 25,
        "train.log_every_steps": 1,
    },
    "gpu": {
        "config": "sibert_base:paper",
        "optim.eta_lambda": 4e-4,  # Σηλ as in the paper's 1M steps
        "optim.learning_rate": 0.0,
        "optim.weight_decay": 0.0,
        "optim.head.warmup_steps": 200,
        "train.num_steps": 20_000,
        "train.log_every_steps": 1,
        "train.eval_every_steps": 1000,
    },
}
START = 50  # steps that the extremes leave out, in which the gradient falls fourfold


def points(scale: str) -> list[dict]:
    """A run for each C and seed; the seeds outermost, so that a part of the plan compares all C."""
    return [
        {"arm": f"C={factor}", **SETTINGS[scale], **claims.text(scale)}
        | {"optim.clip_factor": factor, "seed": seed}
        for seed in range(SEEDS[scale])
        for factor in FACTORS[scale]
    ]


def measure(run: Run) -> dict:
    """Extremes over the steps: what a clip is there to prevent."""
    rotation, predicted = run.metric("optim/rotation"), run.metric("optim/predicted_rotation")
    usual = np.interp(rotation.steps, predicted.steps, predicted.values)
    turned = rotation._replace(values=rotation.values / np.where(usual > 0, usual, np.nan))
    late = rotation.steps > START
    norm, loss = run.metric("optim/param_norm"), run.metric("train/mlm_loss")
    growth = np.diff(np.log(norm.values))[late[1:]]
    rise = _above_running_median(loss.values)[late]
    points = claims.downsample(turned, claims.CURVE_POINTS)
    return {
        "rotation_over_equilibrium": float(np.nanmax(turned.values[late])),
        "steps_above_twice_equilibrium": float(np.nanmean(turned.values[late] > 2)),
        "norm_growth": float(np.expm1(np.nanmax(growth))),
        "loss_rise": float(np.nanmax(rise)),
        "largest_rotation": [points.steps.tolist(), [float(f"{x:.6g}") for x in points.max]],
    }


def _above_running_median(values: np.ndarray, window: int = 25) -> np.ndarray:
    """Each value less the median of those before it; 0 for the first ones."""
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)
    return np.concatenate([np.zeros(window), values[window:] - medians[:-1]])


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Loss and clip rate against C; weight norm; the largest rotations."""
    losses, norms, rotations = figure.subplots(1, 3)
    found = claims.by_arm(lines)
    for place, (arm, color) in enumerate(zip(found, COLORS)):
        results = [line["result"] for line in found[arm]]
        values = [loss for line in found[arm] if (loss := arms.final_loss(line)) is not None]
        losses.plot([place] * len(values), values, "o", color=color, markersize=9, alpha=0.8)
        if values:
            mean = [np.mean(values)] * 2
            losses.plot([place - 0.25, place + 0.25], mean, color=color, linewidth=2)
        first = results[0]
        style = {"color": color, "linewidth": 2, "label": _named(arm)}
        norms.plot(*first["curves"]["optim/param_norm"], **style)
        equilibrium = first["curves"]["optim/equilibrium_norm"]
        norms.plot(*equilibrium, "--", color=color, linewidth=1.2)
        rotations.plot(*first["largest_rotation"], **style)
        factor = arm.removeprefix("C=")
        if factor != "inf":
            rotations.axhline(float(factor) ** 0.5, color=color, linewidth=1, linestyle=":")
    rates = [np.mean([line["result"]["clip_rate"] or 0 for line in found[arm]]) for arm in found]
    ticks = [f"{_named(arm)}\n{rate:.1%} clipped" for arm, rate in zip(found, rates)]
    losses.set_xticks(range(len(found)), ticks)
    low, high = losses.get_ylim()
    losses.set_ylim(min(low, high - 0.02), high)
    losses.ticklabel_format(axis="y", useOffset=False)
    losses.set_ylabel("evaluation loss at the end (nats a token)")
    losses.set_title("Final loss; a dot a seed, a bar the mean", loc="left")
    norms.set(xlabel="step", ylabel="‖x‖ of the scale-invariant parameters", ylim=0)
    norms.set_title("Weight norm; dashed: its equilibrium", loc="left")
    rotations.set(xlabel="step", ylabel="largest rotation of a step / √(2ηλ)", ylim=0)
    rotations.set_title("Largest rotations of seed 0; dotted: the cap √C", loc="left")
    for axis in (norms, rotations):
        claims.legend(axis)


def _named(arm: str) -> str:
    return arm.replace("inf", "∞")


def table(lines: Sequence[dict]) -> str:
    """Rates, losses and extremes of each C, over the seeds."""
    header = ("", "clip rate, %", "evaluation loss", "largest rotation / √(2ηλ)")
    header += ("steps above 2·√(2ηλ), %", "largest growth of ‖x‖ in a step, %")
    header += ("largest rise of the loss, nats",)
    rows = []
    for arm, found in claims.by_arm(lines).items():
        results = [line["result"] for line in found]

        def shown(key: str, digits: int, factor: float = 1.0, results=results) -> str:
            return claims.spread([factor * r[key] for r in results if key in r], digits)

        rows.append(
            [
                _named(arm),
                shown("clip_rate", 2, 100),
                claims.spread([arms.final_loss(run) for run in found], 3),
                shown("rotation_over_equilibrium", 2),
                shown("steps_above_twice_equilibrium", 2, 100),
                shown("norm_growth", 2, 100),
                shown("loss_rise", 2),
            ]
        )
    return claims.markdown(header, rows)
