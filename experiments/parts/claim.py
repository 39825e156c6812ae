"""What each part of the architecture buys: one change at a time, under AdamW and under SGD."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments import arms, claims

# Of runs of 500 steps, near the best of experiments/decoder; longer ones take less.
RATES = {
    "minutes": {"SIBERT, AdamW": 4e-3, "SIBERT, orthogonalized SGD": 8e-3},
    "hours": {"SIBERT, AdamW": 4e-3, "SIBERT, orthogonalized SGD": 8e-3},
    "gpu": {"SIBERT, AdamW": 5e-4, "SIBERT, orthogonalized SGD": 3e-4},
}
CHANGES = {
    "as it is": {},
    "branches normalized before only, as the paper's": {"model__arch": "sibert"},
    "that, with softmax of normalized q and k": {"model__arch": "sibert_qk_norm"},
    "that, with no constant on the branches": {
        "model__arch": "sibert",
        "model__branch_scaling": "none",
    },
    "stem and transform start at random": {"model__identity_init": False},
    "biases on queries, keys, values": {"model__qkv_bias": True},
    "table over its root mean square": {"task__table_norm": "table"},
    "logits half as large": {"task__logit_scale": 4.0},
    "logits twice as large": {"task__logit_scale": 16.0},
}
WITH_ADAMW = {
    "BERT's tied head": {"task__head": "tied"},
    "BERT's untied head": {"task__head": "untied"},
    "BERT's layers, softmax, GELU": {"model__arch": "bert", "model__norm_eps": 1e-12},
    "BERT's layers, PreNorm": {"model__arch": "bert_prenorm", "model__norm_eps": 1e-12},
}


def points(scale: str) -> list[dict]:
    """A run for each change and optimizer; heads that are not invariant only with AdamW."""
    return [
        arms.arm_point(arm, rate, arms.small(scale), **keys)
        | {"arm": f"{name}; {arm.partition(', ')[2]}"}
        for arm, rate in RATES[scale].items()
        for name, keys in (CHANGES | (WITH_ADAMW if arm == "SIBERT, AdamW" else {})).items()
    ]


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Final losses, an optimizer a panel."""
    for axis, name in zip(figure.subplots(1, 2), ("AdamW", "orthogonalized SGD")):
        found = {
            arm.partition("; ")[0]: runs
            for arm, runs in claims.by_arm(lines).items()
            if arm.endswith(name)
        }
        arms.final_losses(axis, found)
        axis.set_title(name, loc="left")


def table(lines: Sequence[dict]) -> str:
    """Final losses."""
    return arms.loss_table(claims.by_arm(lines))
