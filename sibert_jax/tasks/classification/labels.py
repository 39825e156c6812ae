"""Finds the classes or the score range of a user's own labels, and class weights.

Notation: N examples, C classes.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sibert_jax.data import DataError, LabeledConfig
from sibert_jax.errors import ConfigError, named_by
from sibert_jax.tasks.classification.config import OWN, ClassificationConfig, dataset_of
from sibert_jax.tasks.classification.examples import RawExamples, number, read_raw
from sibert_jax.tasks.finetuning import listed

# More distinct labels than this, and than half the examples, mean a wrong column.
MANY = 100


def find_labels(
    task: ClassificationConfig, data: LabeledConfig, say: Callable[[str], None]
) -> Mapping[str, object]:
    """Infers unspecified keys of `task` from own training data: `labels` or `score_range`.

    Raises:
      DataError: the examples cannot be read, or their labels are unusable for training.
    """
    if task.dataset != OWN or task.classes or task.scores:
        return {}
    with named_by("data.path"):
        dataset = dataset_of(task, data)
        raw = read_raw(data.source, data.path, dataset, strict=task.strict, labeled=True)
        if raw.labels is None:
            raise DataError(f"{data.path} has no labels; name a labeled set")
        if task.is_regression:
            return {"score_range": _range(raw)}
        classes = _classes(raw)
    say(f"{len(classes)} classes: {listed(classes)}")
    folded = [label.casefold() for label in classes]
    if alike := [label for label, plain in zip(classes, folded) if folded.count(plain) > 1]:
        say(f"classes that differ only in case: {listed([repr(label) for label in alike])}")
    return {"labels": classes}


def _range(raw: RawExamples) -> tuple[float, float]:
    for where, label in zip(raw.places, raw.labels):
        if not math.isfinite(number(label)):
            raise DataError(f"{where}: the score {label!r} is not a number")
    scores = [number(label) for label in raw.labels]
    if min(scores) == max(scores):
        raise DataError(f"{raw.places[0]}: all {len(scores):,} scores are {raw.labels[0]}")
    return min(scores), max(scores)


def _classes(raw: RawExamples) -> tuple[str, ...]:
    """Returns the classes, whole numbers in numeric order, other labels alphabetically."""
    found = sorted(set(raw.labels))
    if len(found) == 1:
        raise DataError(
            f"{raw.places[0]}: all {len(raw.labels):,} labels are {found[0]!r}; at least two "
            "classes are needed"
        )
    if all(math.isfinite(number(label)) for label in found):
        is_whole = [bool(re.fullmatch(r"[+-]?\d+", label)) for label in found]
        if all(is_whole):
            return tuple(sorted(found, key=int))
        place = raw.places[raw.labels.index(found[is_whole.index(False)])]
        raise DataError(
            f"{place}: the label {found[is_whole.index(False)]!r} is a fraction; for scores set "
            "task.kind=regression"
        )
    if len(found) > max(MANY, len(raw.labels) / 2):
        raise DataError(
            f"{raw.places[0]}: {len(found):,} different labels in {len(raw.labels):,} examples, "
            f"such as {raw.labels[0][:40]!r}; name the column of the label in data.label"
        )
    return tuple(found)


def class_weights(text: str, classes: Sequence[str], labels_N: np.ndarray) -> np.ndarray | None:
    """Returns the weight of each class in the training loss, (C,) float32; None: all equal.

    Args:
      text: `task.class_weights`. "balanced" means N/(C·n) for a class of n examples.
      classes: the names of the classes.
      labels_N: int, classes of the training examples.

    Raises:
      ConfigError: a class is unknown, or a weight is not a number ≥ 0.
    """
    if not text:
        return None
    if text == "balanced":
        counts_C = np.bincount(labels_N, minlength=len(classes))
        return (len(labels_N) / (len(classes) * np.maximum(counts_C, 1))).astype(np.float32)
    weights_C = np.ones(len(classes), np.float32)
    for part in text.split(","):
        label, _, weight = (word.strip() for word in part.rpartition(":"))
        if label not in classes:
            raise ConfigError(
                f"task.class_weights={text!r}: there is no class {label!r} but "
                f"{listed(classes)}; write 'balanced' or 'LABEL:WEIGHT,...'."
            )
        if not 0 <= number(weight) < math.inf:
            raise ConfigError(
                f"task.class_weights={text!r}: {weight!r} must be a number of at least 0."
            )
        weights_C[classes.index(label)] = number(weight)
    if not weights_C[labels_N].any():
        raise ConfigError(f"task.class_weights={text!r}: all examples have weight 0.")
    return weights_C
