"""Pretraining helps fine-tuning, with stateless optimizers throughout: GLUE after one long run."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments import arms, claims

STEPS = {"minutes": 60, "hours": 6100, "gpu": 100_000}  # 25 M tokens at `hours`
SETS = {"minutes": (), "hours": ("sst2", "mrpc", "rte", "cola", "mnli")}
SETS["gpu"] = SETS["hours"]
FILES = {
    "sst2": ("SST-2/train", "SST-2/dev"),
    "mrpc": ("MRPC/train", "MRPC/test"),
    "rte": ("RTE/train", "RTE/dev"),
    "cola": ("CoLA/train", "CoLA/dev"),
    "mnli": ("MNLI/train*", "MNLI/dev_matched"),  # or a part of it
}
FINETUNING_STEPS = {"sst2": 4000, "mrpc": 1000, "rte": 1000, "cola": 1000, "mnli": 4000}
SEEDS = 3
# Pretraining arm and rate; the keys of fine-tuning.
ARMS = {
    "SIBERT, orthogonalized SGD": (1e-3, {"config": "glue:optim=stateless"}),
    "BERT, AdamW": (4e-3, {"config": "glue:arch=bert"}),
}


def points(scale: str) -> list[dict]:
    """The long runs, then fine-tuning from them and from scratch."""
    runs, finetuned = {}, []
    for arm, (rate, _) in ARMS.items():
        long = arms.arm_point(arm, rate, scale, train__num_steps=STEPS[scale])
        if scale != "minutes":
            long |= {
                "train.eval_every_steps": STEPS[scale] // 50,
                "checkpoint.every_steps": STEPS[scale] // 50,
            }
        runs[arm] = long
    for seed in range(SEEDS):  # outermost: a part of the runs compares all
        for name in SETS[scale]:
            for arm, (_, finetuning) in ARMS.items():
                for start in ("pretrained", "from scratch"):
                    finetuned.append(finetune(arm, runs[arm], name, start, seed) | finetuning)
    return [*runs.values(), *finetuned]


def finetune(arm: str, long: dict, name: str, start: str, seed: int) -> dict:
    """A run on a set of GLUE."""
    train, valid = FILES[name]
    point = {
        "arm": f"{name}; {arm}, {start}",
        "task.dataset": name,
        "data.path": f"{{data}}/glue/{train}.tsv*",
        "data.valid_path": f"{{data}}/glue/{valid}.tsv*",
        "train.num_epochs": 0.0,
        "train.num_steps": FINETUNING_STEPS[name],
        "checkpoint.keep": 1,
        "seed": seed,
    }
    origin = f"{{runs}}/{claims.run_name(long)}"
    if start == "pretrained":
        return point | {"checkpoint.init_from": origin}
    sizes = {k: v for k, v in long.items() if k.startswith("model.") and k != "model.vocab_size"}
    if arm != "BERT, AdamW":
        sizes |= {"model.arch": "sibert_sandwich", "model.identity_init": True}
    return point | sizes | {"model.num_segments": 1, "data.vocab": f"{origin}/vocab.txt"}


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Loss of the long runs; scores after fine-tuning."""
    found = claims.by_arm(lines)
    rows = {arm: runs for arm, runs in found.items() if arm not in ARMS}
    curves, *scores = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    for arm, color in zip(ARMS, arms.COLORS):
        if arm in found and "eval/mlm_loss" in found[arm][0]["result"]["curves"]:
            curves.plot(*found[arm][0]["result"]["curves"]["eval/mlm_loss"], color=color, label=arm)
    curves.set(xlabel="step", ylabel="evaluation loss (nats a token)")
    claims.legend(curves)
    for axes in scores:
        for row, (runs, color) in enumerate(zip(rows.values(), arms.COLORS * 10)):
            values = [score(run) for run in runs if score(run) is not None]
            axes.plot(values, [row] * len(values), "o", color=color)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.set_xlabel("score (accuracy, or Matthews' correlation of CoLA)")


def score(line: dict) -> float | None:
    """The main metric of a fine-tuning run: the first that is no loss; None: diverged."""
    last = line["result"]["last"]
    return next((v for name, v in last.items() if name not in ("step", "eval/loss")), None)


def table(lines: Sequence[dict]) -> str:
    """Losses of the long runs, and scores."""
    found = claims.by_arm(lines)
    long = arms.loss_table({arm: found[arm] for arm in ARMS if arm in found})
    rows = [
        [arm, claims.spread([score(run) for run in runs])]
        for arm, runs in found.items()
        if arm not in ARMS
    ]
    return f"{long}\n{claims.markdown(('fine-tuning', 'score'), rows)}" if rows else long
