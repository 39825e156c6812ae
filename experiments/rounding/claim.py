"""Weights in few bits: the loss, what SignRound recovers, and whether SIBERT loses less."""

import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import arms, claims
from sibert_jax.inference.load import load
from sibert_jax.interop.per_layer import unflatten
from sibert_jax.interop.quantized import dequantized
from sibert_jax.quantize import Settings, quantize
from sibert_jax.quantize.calibration import of_one_length
from sibert_jax.report.figure import COLORS
from sibert_jax.report.run_folder import Run
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import read_settings

# Pretraining arm: its rate; config, rate and keys of fine-tuning, None where there is no such task.
ARMS = {
    "SIBERT, orthogonalized SGD": (2.4e-3, ("glue", 1e-2)),
    "BERT, AdamW": (4e-3, ("glue:arch=bert", 1e-3)),
    "SIGPT, orthogonalized SGD": (2.4e-3, None),
    "GPT, AdamW": (4e-3, None),
}
STEPS, FINETUNING_STEPS = 1200, 1500  # at `hours`: 2.5 M tokens
BITS, METHODS = (8, 4, 3, 2), ("rtn", "signround")
GROUP = 32
SIZES = {  # batches to calibrate on, steps, batches to evaluate on
    "minutes": (2, 20, 4),
    "hours": (16, 200, 32),
    "gpu": (64, 200, 64),
}
BATCH_SIZE = 8


def points(scale: str) -> list[dict]:
    """A run of each architecture, then SST-2 from those that read both ways."""
    pretrained, finetuned = [], []
    length = {} if scale == "minutes" else {"train__num_steps": STEPS}
    for arm, (rate, finetuning) in ARMS.items():
        pretrained.append(arms.arm_point(arm, rate, arms.small(scale), **length))
        if finetuning and scale != "minutes":
            finetuned.append(on_sst2(arm, pretrained[-1], *finetuning))
    return pretrained + finetuned


def on_sst2(arm: str, start: dict, config: str, rate: float) -> dict:
    """A run that fine-tunes the model of another one."""
    return {
        "arm": f"SST-2; {arm}",
        "config": config,
        "data.path": "{data}/glue/SST-2/train.tsv*",
        "data.valid_path": "{data}/glue/SST-2/dev.tsv*",
        "data.num_seq_lens": 3,
        "optim.learning_rate": rate,
        "train.num_epochs": 0.0,
        "train.num_steps": FINETUNING_STEPS,
        "checkpoint.init_from": f"{{runs}}/{claims.run_name(start)}",
        "checkpoint.keep": 1,
        "seed": 0,
    }


def measure(run: Run) -> dict:
    """Losses and bytes of a run in few bits, by "bits method"."""
    return {
        "quantized": quantized(run.path, **dict(zip(("batches", "steps", "evals"), _size(run))))
    }


def _size(run: Run) -> tuple[int, int, int]:
    width = run.config["model"]["width"]
    return SIZES["minutes" if width < 128 else "hours" if width < 768 else "gpu"]


def quantized(folder: pathlib.Path, batches: int, steps: int, evals: int) -> dict:
    """Evaluation loss, bytes of all weights and mean error of the blocks.

    Args:
      folder: workdir of a pretraining run.
      batches: to calibrate on, the first of the training data.
      steps: of SignRound.
      evals: batches of the held-out text.
    """
    model, run = load(folder), run_config(read_settings(folder / "config.json"))
    task, data = run.task_type.load(
        run.model, run.task, run.data, global_batch_size=BATCH_SIZE, seed=run.seed,
        progress=lambda line: None,
    )  # fmt: skip
    seen = [data.train.batch(i, slice(0, BATCH_SIZE)) for i in range(batches)]
    seen = of_one_length(seen, model.tokenizer.pad_id)
    held_out = [
        data.valid.batch(i, slice(0, BATCH_SIZE)) for i in range(min(evals, len(data.valid)))
    ]
    evaluate = jax.jit(task.eval_batch)

    def loss(params: Mapping) -> float:
        params = jax.tree.map(jnp.asarray, params)
        results = [jax.device_get(evaluate(params, batch)) for batch in held_out]
        return task.eval_metrics(results)["mlm_loss"]

    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    found = {"float": {"loss": loss(model.params), "bytes": 4 * size, "errors": {}}}
    for bits in BITS:
        for method in METHODS:
            blocks, settings = [], Settings(bits=bits, group=GROUP, method=method, steps=steps)
            tensors = quantize(model.module, model.params, seen, settings, keep=blocks.append)
            params = unflatten(dequantized(tensors), scan_layers=run.model.scan_layers)
            found[f"{bits} {method}"] = {
                "loss": loss(params),
                "bytes": sum(tensor.nbytes for tensor in tensors.values()),
                "errors": {done.block: float(f"{done.error:.4g}") for done in blocks},
            }
    return found


def rows(line: dict) -> list[tuple]:
    """(bits, method, loss above the float model's, bytes over its, mean error of the blocks)."""
    found = line["result"]["quantized"]
    whole = found["float"]
    return [
        (
            *name.split(),
            value["loss"] - whole["loss"],
            value["bytes"] / whole["bytes"],
            float(np.mean(list(value["errors"].values()))),
        )
        for name, value in found.items()
        if name != "float"
    ]


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Loss above the float model's, and error of the blocks, over the bits."""
    left, right = figure.subplots(1, 2)
    for (arm, of_arm), color in zip(claims.by_arm(lines).items(), COLORS):
        for method, style in zip(METHODS, ("--", "-")):
            found = [row for row in rows(of_arm[0]) if row[1] == method]
            bits = [int(row[0]) for row in found]
            for axis, column in ((left, 2), (right, 4)):
                values = [row[column] for row in found]
                axis.plot(bits, values, style, color=color, marker="o", label=f"{arm}, {method}")
    left.set_yscale("symlog", linthresh=1e-3)
    right.set_yscale("log")
    left.set(xlabel="bits", ylabel="loss above the float model's (nats a token)")
    right.set(xlabel="bits", ylabel="squared error of a block over its square, mean")
    for axis in (left, right):
        axis.set_xticks(sorted(BITS))
    claims.legend(left)


def table(lines: Sequence[dict]) -> str:
    """A row for each model, number of bits and method."""
    found = []
    for line in lines:
        damage = {row[:2]: row[2] for row in rows(line)}
        for bits, method, above, size, error in rows(line):
            nearest = damage[bits, "rtn"]
            recovered = "–" if method == "rtn" or nearest <= 0.01 else f"{1 - above / nearest:.0%}"
            arm = line["point"]["arm"]
            cells = (f"{above:+.4f}", recovered, f"{error:.2g}", f"{size:.1%}")
            found.append((arm, bits, method, *cells))
    header = ("arm", "bits", "method", "loss above float", "recovered", "error of blocks", "bytes")
    return claims.markdown(header, found)
