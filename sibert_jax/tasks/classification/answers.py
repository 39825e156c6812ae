"""Turns outputs into answers with names and probabilities. Notation: N examples, C classes."""

import pathlib
from collections.abc import Callable

import numpy as np

from sibert_jax.data import BucketedBatches
from sibert_jax.files import atomically
from sibert_jax.tasks.classification.config import OWN, ClassificationConfig
from sibert_jax.tasks.classification.examples import Examples
from sibert_jax.tasks.classification.metrics import by_class, confusion
from sibert_jax.tasks.classification.task import metrics, predictions, real_rows
from sibert_jax.tasks.finetuning import tab_lines
from sibert_jax.tasks.task import HeldOut

MOST_COLUMNS = 20  # up to so many classes, each probability gets a column
MOST_CONFUSED = 100  # up to so many classes, the confusion matrix is written


def answers(outputs_NC: np.ndarray, task: ClassificationConfig) -> list[dict]:
    """Returns a dict per example: "prediction", "probability" and "probabilities", or a score."""
    predicted_N = predictions(outputs_NC, task)
    if task.is_regression:
        return [{"prediction": score} for score in predicted_N.astype(np.float64).tolist()]
    exp_NC = np.exp(outputs_NC - outputs_NC.max(axis=-1, keepdims=True), dtype=np.float64)
    probability_NC = exp_NC / exp_NC.sum(axis=-1, keepdims=True)
    return [
        {
            "prediction": task.classes[index],
            "probability": row[index],
            "probabilities": dict(zip(task.classes, row)),
        }
        for index, row in zip(predicted_N.tolist(), probability_NC.tolist())
    ]


def answer_lines(records: list[dict]) -> list[str]:
    """Formats records as tab-separated lines, with columns "p(LABEL)" if there are few classes."""
    return tab_lines([_flat(record) for record in records])


def _flat(record: dict) -> dict:
    fields = {}
    for name, value in record.items():
        if name != "probabilities":
            fields[name] = value
        elif len(value) <= MOST_COLUMNS:
            fields |= {f"p({label})": probability for label, probability in value.items()}
    return fields


def held_out_set(
    examples: Examples, batches: BucketedBatches, task: ClassificationConfig
) -> HeldOut:
    """Returns a held-out set whose `finish` writes the predictions."""

    def finish(results: list, directory: pathlib.Path) -> dict:
        outputs_NC = real_rows(results)["outputs"]
        to_lines: Callable = own_lines if task.dataset == OWN else glue_lines
        with atomically(directory / f"{examples.name}.tsv") as temporary:
            lines = to_lines(examples, answers(outputs_NC, task), task)
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        if examples.labels is None:
            return {}
        scores = metrics(outputs_NC, examples.labels, task)
        if task.is_regression:
            return scores
        return scores | details(predictions(outputs_NC, task), examples.labels, task.classes)

    return HeldOut(examples.name, batches, finish)


def own_lines(examples: Examples, found: list[dict], task: ClassificationConfig) -> list[str]:
    """Formats index, label (if there is one) and answer as lines."""
    records = [{"index": key} for key in examples.ids]
    if examples.labels is not None:
        names = task.classes or None
        for record, label in zip(records, examples.labels.tolist(), strict=True):
            record["label"] = names[label] if names else label
    return answer_lines([record | answer for record, answer in zip(records, found, strict=True)])


def glue_lines(examples: Examples, found: list[dict], task: ClassificationConfig) -> list[str]:
    """Formats GLUE's submission, `index<TAB>prediction`, with scores to three decimals."""
    form = "{:.3f}" if task.is_regression else "{}"
    rows = zip(examples.ids, found, strict=True)
    return ["index\tprediction"] + [f"{i}\t{form.format(a['prediction'])}" for i, a in rows]


def details(predicted_N: np.ndarray, labels_N: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Returns the metrics of each class and the confusion matrix.

    Returns:
      {"classes": {label: {"precision", "recall", "f1", "examples"}}, "confusion": (C, C) counts,
      one row per true class}; no "confusion" for more than `MOST_CONFUSED` classes.
    """
    counts_CC = confusion(predicted_N, labels_N, len(classes))
    columns = by_class(counts_CC) | {"examples": counts_CC.sum(axis=1)}
    figures = {
        label: {name: column[i].item() for name, column in columns.items()}
        for i, label in enumerate(classes)
    }
    written = {"confusion": counts_CC.tolist()} if len(classes) <= MOST_CONFUSED else {}
    return {"classes": figures} | written
