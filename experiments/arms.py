"""What the training claims compare: arms, sizes, and a picture and a table of final losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import claims
from sibert_jax.report.figure import COLORS

Overrides = Mapping[str, Any]

BERT = {"config": "mini:bert", "model.identity_init": True}
SPHERES = {
    "config": "mini:sibert",
    "optim.name": "hyperball",
    "optim.eta_lambda": 0.0,
    "optim.weight_decay": 0.0,
}

# Every arm's keys but its rate; the key of the rate.
ARMS: dict[str, tuple[Overrides, str]] = {
    "BERT, AdamW": (BERT, "optim.learning_rate"),
    "BERT, AdamW, random init": (BERT | {"model.identity_init": False}, "optim.learning_rate"),
    "BERT, AdamW, learned positions": (
        BERT | {"model.positions": "learned"},
        "optim.learning_rate",
    ),
    "BERT, Muon": (  # of updates as large as AdamW's, which steps the tables and vectors
        BERT
        | {
            "optim.name": "muon",
            "optim.options": "consistent_rms=0.2, adam_weight_decay=0.01",
            "optim.weight_decay": 0.01,
            "optim.max_grad_norm": 0.0,
        },
        "optim.learning_rate",
    ),
    "PreNorm BERT, AdamW": (BERT | {"config": "mini:bert_prenorm"}, "optim.learning_rate"),
    "SIBERT, AdamW": (
        BERT
        | {
            "model.arch": "sibert_sandwich",
            "model.norm_eps": 1e-6,
            "task.head": "invariant",
        },
        "optim.learning_rate",
    ),
    "SIBERT, the paper's recipe": ({"config": "mini:paper"}, "optim.eta_lambda"),
    "SIBERT, orthogonalized SGD": ({"config": "mini:sibert"}, "optim.eta_lambda"),
    "SIBERT, plain SGD": (
        {"config": "mini:sibert", "optim.name": "equilibrium_sgd"},
        "optim.eta_lambda",
    ),
    "SIBERT, SGD on spheres": (SPHERES, "optim.learning_rate"),
    "SIBERT, Muon on spheres": (
        SPHERES | {"optim.options": "inner=muon"},
        "optim.learning_rate",
    ),
    "BERT, SGD": (
        BERT | {"optim.name": "sgd", "optim.options": "", "optim.max_grad_norm": 0.0},
        "optim.learning_rate",
    ),
    "SIGPT, orthogonalized SGD": ({"config": "gpt:mini"}, "optim.eta_lambda"),
    "GPT, AdamW": ({"config": "gpt:mini_adamw"}, "optim.learning_rate"),
}

# With learned positions or full attention, runs of these lengths hardly learn the order of words:
# experiments/headline.
NEIGHBORS = {
    "model.positions": "rotary",
    "model.attention_window": 2,
    "model.global_attention_every": 2,
}

SIZES: dict[str, Overrides] = {
    "minutes": {
        **NEIGHBORS,
        "model.vocab_size": 1024,
        "model.width": 32,
        "model.ffn_width": 128,
        "model.depth": 1,
        "data.seq_len": 64,
        "train.num_steps": 60,
        "train.global_batch_size": 8,
        "train.eval_every_steps": 30,
        "train.eval_batches": 8,
    },
    # configs/mini.py: 2 × 128
    "hours": {**NEIGHBORS, "train.eval_batches": 32, "checkpoint.keep": 1},
    "small": {
        **NEIGHBORS,
        "model.width": 64,
        "model.num_heads": 1,
        "model.ffn_width": 256,
        "model.max_len": 64,
        "data.seq_len": 64,
        "train.num_steps": 500,
        "train.eval_every_steps": 100,
        "train.eval_batches": 16,
        "checkpoint.keep": 1,
    },
    "gpu": {
        "model.positions": "rotary",
        "model.vocab_size": 30_522,
        "model.width": 768,
        "model.depth": 12,
        "model.num_heads": 12,
        "model.ffn_width": 3072,
        "model.dtype": "bfloat16",
        "train.num_steps": 20_000,
        "train.global_batch_size": 256,
        "train.eval_every_steps": 1000,
        "checkpoint.every_steps": 1000,
        "checkpoint.keep": 1,
    },
}


LOSS = "evaluation loss at the end (nats a token)"


def small(scale: str) -> str:
    """The size of claims with many runs: at `hours` 2 × 64 and 1 M tokens."""
    return "small" if scale == "hours" else scale


def arm_point(arm: str, rate: float, scale: str, seed: int = 0, **changes: Any) -> dict:
    """A run of an arm at a rate.

    Args:
      arm: a key of ARMS.
      rate: of its rate key.
      scale: of SIZES.
      seed: of the run.
      **changes: further keys, dots as double underscores.
    """
    overrides, key = ARMS[arm]
    sizes = {**SIZES[scale], **claims.text(scale)}
    point = {"arm": arm, **sizes, **overrides, key: rate, "seed": seed}
    point |= warmup(point)
    return point | {name.replace("__", "."): value for name, value in changes.items()}


def warmup(point: Overrides) -> dict:
    """Shares of the steps, where configs/mini.py has numbers for its own length."""
    if "paper" in point["config"]:
        return {"optim.head.warmup_steps": 0, "optim.head.warmup_fraction": 0.05}
    share = 0.02 if point["config"] in ("mini:sibert", "gpt:mini") else 0.1
    return {"optim.warmup_steps": 0, "optim.warmup_fraction": share}


def final_loss(line: Mapping) -> float | None:
    """The evaluation loss at the end; None: diverged, or no better than before training."""
    result = line["result"]
    if result["eval_loss"] is None:
        return None
    curves = result["curves"]
    _, losses = curves.get("eval/mlm_loss") or curves["eval/loss"]
    return result["eval_loss"] if result["eval_loss"] <= losses[0] else None


def final_losses(axis, arms: Mapping[str, Sequence[dict]]) -> None:
    """A dot a run at its final evaluation loss, a bar the mean, an arm a row."""
    for row, (arm, color) in enumerate(zip(arms, COLORS * 3)):
        known = [loss for line in arms[arm] if (loss := final_loss(line)) is not None]
        axis.plot(known, [row] * len(known), "o", color=color, markersize=8, alpha=0.8)
        if known:
            axis.plot([np.mean(known)] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2)
    axis.set_yticks(range(len(arms)), list(arms))
    axis.invert_yaxis()
    axis.set_xlabel(LOSS)


def loss_against_state(axis, arms: Mapping[str, Sequence[dict]]) -> None:
    """A dot a run: final evaluation loss over the bytes of optimizer state a parameter."""
    for (arm, lines), color in zip(arms.items(), COLORS * 3):
        known = [line for line in lines if final_loss(line) is not None]
        results = [line["result"] for line in known]
        state = [result["state_bytes"] / result["num_parameters"] for result in results]
        losses = [final_loss(line) for line in known]
        axis.plot(state, losses, "o", color=color, markersize=9, alpha=0.8, label=arm)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_xticks([0, 0.01, 0.1, 1, 4, 8], ["0", "0.01", "0.1", "1", "4", "8"])
    axis.set_xlim(-0.001, 12)
    axis.set(xlabel="optimizer state (bytes a parameter)", ylabel=LOSS)


def fifths(result: Mapping) -> list[float | None]:
    """Loss on the most frequent fifth of the text, ..., on the rarest."""
    last = result["last"]
    return [last[f"eval/mlm_loss_fifth_{i}"] for i in range(1, 6)] if last else [None] * 5


def loss_table(arms: Mapping[str, Sequence[dict]], settings: Sequence[str] = ()) -> str:
    """Loss, fifths and state of each arm, over its runs.

    Args:
      arms: lines of results by arm.
      settings: keys of the points to show.
    """
    header = (
        "arm",
        *settings,
        "runs",
        "loss",
        "by fifths, frequent to rare",
        "state, bytes a parameter",
    )
    rows = []
    for arm, lines in arms.items():
        results = [line["result"] for line in lines]
        point = lines[0]["point"]
        means = [
            claims.spread(values, 2).partition(" ")[0] for values in zip(*map(fifths, results))
        ]
        state = results[0]["state_bytes"] / results[0]["num_parameters"]
        rows.append(
            [
                arm,
                *(f"{point[key]:g}" if key in point else "" for key in settings),
                len(lines),
                claims.spread([final_loss(line) for line in lines]),
                " ".join(means),
                f"{state:.2f}",
            ]
        )
    return claims.markdown(header, rows)


def draw_curves(axis, arms: Mapping[str, Sequence[dict]]) -> None:
    """Evaluation loss over the steps, of the first run of each arm."""
    for (arm, lines), color in zip(arms.items(), COLORS * 3):
        found = lines[0]["result"]["curves"]
        if "eval/mlm_loss" in found:
            axis.plot(*found["eval/mlm_loss"], color=color, linewidth=2, label=arm)
    axis.set(xlabel="step", ylabel="evaluation loss (nats a token)")
    claims.legend(axis)
