"""Weights in few bits: the loss, what SignRound recovers, and whether scale invariance helps."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import arms, claims
from sibert_jax.data.config import CorpusConfig
from sibert_jax.inference.load import load
from sibert_jax.inference.loaded_model import LoadedModel
from sibert_jax.interop.per_layer import unflatten
from sibert_jax.interop.quantized import dequantized
from sibert_jax.quantize import Settings, quantize
from sibert_jax.quantize.calibration import of_one_length
from sibert_jax.report.figure import COLORS
from sibert_jax.report.run_folder import Run
from sibert_jax.tasks.registry import task_type
from sibert_jax.tasks.task import Task, TaskData, TaskType
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import read_settings

# Pretraining arm: its rate; steps at `hours`; config and rate of SST-2, None: it reads one way.
ARMS = {
    "SIBERT, orthogonalized SGD": (2.4e-3, 1000, ("glue", 1e-2)),
    "BERT, AdamW": (4e-3, 1000, ("glue:arch=bert", 1e-3)),
    "SIGPT, orthogonalized SGD": (2.4e-3, 400, None),
    "GPT, AdamW": (4e-3, 400, None),
}
SST2, SST2_STEPS = "SST-2; ", 500
# The model that comes along, without training here.
LONGER = {"arm": "models/mini, SIBERT", "path": "{train}", "valid_path": "{valid}"}
SECONDS = {"minutes": 0.0, "hours": 300.0, "gpu": 300.0}  # of that
BITS, METHODS = (8, 4, 3, 2), ("rtn", "signround")
GROUP, BATCH_SIZE = 32, 8
SIZES = {  # batches to calibrate on, steps, batches to evaluate on
    "minutes": (2, 20, 4),
    "hours": (16, 200, 64),
    "gpu": (64, 200, 64),
}


def points(scale: str) -> list[dict]:
    """A run of each architecture, then SST-2 from those that read both ways."""
    pretrained, finetuned = [], []
    for arm, (rate, steps, finetuning) in ARMS.items():
        length = {"train__num_steps": steps} if scale == "hours" else {}
        pretrained.append(arms.arm_point(arm, rate, arms.small(scale), **length))
        if finetuning and scale != "minutes":
            finetuned.append(on_sst2(arm, pretrained[-1], *finetuning))
    return pretrained + finetuned + ([] if scale == "minutes" else [LONGER])


def on_sst2(arm: str, start: dict, config: str, rate: float) -> dict:
    """A run that fine-tunes the model of another one."""
    return {
        "arm": SST2 + arm,
        "config": config,
        "data.path": "{data}/glue/SST-2/train.tsv*",
        "data.valid_path": "{data}/glue/SST-2/dev.tsv*",
        "data.num_seq_lens": 2,
        "optim.learning_rate": rate,
        "train.num_epochs": 0.0,
        "train.num_steps": SST2_STEPS,
        "checkpoint.init_from": f"{{runs}}/{claims.run_name(start)}",
        "checkpoint.keep": 1,
        "seed": 0,
    }


def measure(run: Run) -> dict:
    """The model of a run in few bits, by "bits method"."""
    folder, width = run.path, run.config["model"]["width"]
    run = run_config(read_settings(folder / "config.json"))
    size = "minutes" if width < 64 else "hours" if width < 768 else "gpu"
    task, data = loaded(run.task_type, run.model, run.task, run.data)
    return results(load(folder), task, data, *SIZES[size])


def compute(point: dict) -> dict:
    """The same of the model that comes along."""
    folder = claims.HERE.parent / "models/mini"
    model, paths = load(folder), {key: point[key] for key in ("path", "valid_path")}
    saved = model.trained
    text = CorpusConfig("text", **paths, vocab=str(folder / "vocab.txt"), seq_len=saved.seq_len)
    _, data = loaded(task_type(saved.config.name), model.config, saved.config, text)
    return results(model, saved.restored(model.config, folder), data, *SIZES["hours"])


def loaded(kind: TaskType, *sections: Any) -> tuple[Task, TaskData]:
    """A task and its data, from model, task and data of a config."""
    return kind.load(*sections, global_batch_size=BATCH_SIZE, seed=0, progress=lambda line: None)


def results(
    model: LoadedModel, task: Task, data: TaskData, batches: int, steps: int, evals: int
) -> dict:
    """Loss, accuracy of a classifier, bytes of all weights, errors of the blocks; CPU seconds.

    Args:
      model: of floats.
      task: the model's.
      data: the model is calibrated on the first of its training data.
      batches: to calibrate on.
      steps: of SignRound.
      evals: batches of the held-out text; of a labeled set, all are used.
    """
    seen = [data.train.batch(i, slice(0, BATCH_SIZE)) for i in range(batches)]
    seen = of_one_length(seen, model.tokenizer.pad_id)
    count = len(data.valid) if model.kind == "classification" else min(evals, len(data.valid))
    held_out = [data.valid.batch(i, slice(0, BATCH_SIZE)) for i in range(count)]
    evaluate = jax.jit(task.eval_batch)

    def scores(params: Mapping) -> dict:
        params = jax.tree.map(jnp.asarray, params)
        found = task.eval_metrics([jax.device_get(evaluate(params, b)) for b in held_out])
        loss = found["mlm_loss"] if "mlm_loss" in found else found["loss"]
        is_right = {"accuracy": found["accuracy"]} if model.kind == "classification" else {}
        return {"loss": loss} | is_right

    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    found, seconds = {"float": {**scores(model.params), "bytes": 4 * size}}, {}
    for bits in BITS:
        for method in METHODS:
            settings = Settings(bits=bits, group=GROUP, method=method, steps=steps)
            blocks, started = [], time.process_time()
            tensors = quantize(model.module, model.params, seen, settings, keep=blocks.append)
            seconds[f"{bits} {method}"] = round(time.process_time() - started, 1)
            params = unflatten(dequantized(tensors), scan_layers=model.config.scan_layers)
            found[f"{bits} {method}"] = {
                **scores(params),
                "bytes": sum(tensor.nbytes for tensor in tensors.values()),
                "errors": {done.block: float(f"{done.error:.4g}") for done in blocks},
                "nearest": {done.block: float(f"{done.nearest:.4g}") for done in blocks},
            }
    return {"quantized": found, claims.QUANTIZE_SECONDS: seconds}


def above(line: dict, bits: int, method: str) -> float:
    """Loss above the float model's."""
    found = line["result"]["quantized"]
    return found[f"{bits} {method}"]["loss"] - found["float"]["loss"]


def error(line: dict, bits: int, method: str) -> float:
    """Squared error of a block's output over its square, mean of the blocks."""
    return float(np.mean(list(line["result"]["quantized"][f"{bits} {method}"]["errors"].values())))


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Loss above the float model's, and error of the blocks, over the bits."""
    axes = figure.subplots(1, 2)
    lines = [line for line in lines if not line["point"]["arm"].startswith(SST2)]
    for axis, value in zip(axes, (above, error)):
        for line, color in zip(lines, COLORS):
            for method, style in zip(METHODS, ("--", "-")):
                values = [value(line, bits, method) for bits in BITS]
                label = f"{line['point']['arm']}, {method}"
                axis.plot(BITS, values, style, color=color, marker="o", label=label)
        axis.set_xticks(sorted(BITS))
    axes[0].set_yscale("symlog", linthresh=1e-3)
    shown = [above(line, bits, method) for line in lines for bits in BITS for method in METHODS]
    axes[0].set_ylim(min(-1e-3, 1.5 * min(shown)), 2 * max(*shown, 1e-3))
    axes[1].set_yscale("log")
    axes[0].set(xlabel="bits", ylabel="loss above the float model's (nats a token)")
    axes[1].set(xlabel="bits", ylabel="squared error of a block over its square, mean")
    claims.legend(axes[0])


def table(lines: Sequence[dict]) -> str:
    """A row for each model, number of bits and method; then the worst block of each model."""
    rows, blocks = [], []
    for line in lines:
        arm, result = line["point"]["arm"], line["result"]
        whole, ratios = result["quantized"]["float"], []
        rows.append(
            [arm, "32", "float", f"{whole['loss']:.4f}", "", percent(whole), "", "100%", ""]
        )
        for bits in BITS:
            nearest = above(line, bits, "rtn")
            for method in METHODS:
                name = f"{bits} {method}"
                value, damage = result["quantized"][name], above(line, bits, method)
                judged = method == "signround" and nearest > 0.01
                rows.append(
                    [
                        *(arm, bits, method, f"{damage:+.4f}"),
                        f"{1 - damage / nearest:.0%}" if judged else "",
                        percent(value),
                        f"{error(line, bits, method):.2g}",
                        f"{value['bytes'] / whole['bytes']:.1%}",
                        f"{result[claims.QUANTIZE_SECONDS][name]:.0f}",
                    ]
                )
            tuned = result["quantized"][f"{bits} signround"]
            ratios += [tuned["errors"][k] / tuned["nearest"][k] for k in tuned["errors"]]
        blocks.append([arm, len(ratios), f"{np.median(ratios):.2f}", f"{max(ratios):.2f}"])
    header = ("model", "bits", "method", "loss, or above float", "recovered", "accuracy")
    header += ("error of blocks", "bytes", "CPU seconds")
    of_blocks = ("model", "blocks × bits", "error, SignRound over nearest: median", "greatest")
    return f"{claims.markdown(header, rows)}\n{claims.markdown(of_blocks, blocks)}"


def percent(value: Mapping) -> str:
    """The accuracy of a classifier."""
    return f"{value['accuracy']:.1%}" if "accuracy" in value else ""
