"""The tasks of GLUE: columns and labels of their files, and the official metrics.

Wang et al. 2019, GLUE, https://arxiv.org/abs/1804.07461, table 1. The order of the labels is that
of TensorFlow Datasets, whose labels are numbers. Letters: N examples.
"""

import dataclasses

import numpy as np

# Names that a column has in one distribution of the data or another, in any case.
LABEL_COLUMNS = ("label", "gold_label", "is_duplicate", "Quality", "score")
NO_LABEL = "-"  # in SNLI and MNLI as first published: the annotators did not agree
ID_COLUMNS = ("idx", "index", "id")
_SENTENCE = (("sentence",),)
_PAIR = (
    ("sentence1", "question1", "premise", "#1 String"),
    ("sentence2", "question2", "hypothesis", "#2 String"),
)


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task.

    Args:
      name: as GLUE writes it.
      texts: the names that each text column may have; one column or two.
      labels: the classes as written in the files; () for a score in [0, 5].
      metrics: the official ones; the best evaluation is chosen by the first.
      unnamed_columns: the columns of official files without a header line; (): all have one.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    unnamed_columns: tuple[str, ...] = ()


MAX_SCORE = 5.0
# The publication, the label, the author's own mark, the sentence.
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "cola": GlueTask("CoLA", _SENTENCE, ("0", "1"), ("matthews",), _COLA_COLUMNS),
    "sst2": GlueTask("SST-2", _SENTENCE, ("0", "1"), ("accuracy",)),
    "mrpc": GlueTask("MRPC", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "qqp": GlueTask("QQP", _PAIR, ("0", "1"), ("accuracy", "f1")),
    "stsb": GlueTask("STS-B", _PAIR, (), ("pearson", "spearman")),
    "mnli": GlueTask("MNLI", _PAIR, ("entailment", "neutral", "contradiction"), ("accuracy",)),
    "qnli": GlueTask("QNLI", (("question",), ("sentence",)), _ENTAILMENT, ("accuracy",)),
    "rte": GlueTask("RTE", _PAIR, _ENTAILMENT, ("accuracy",)),
    "wnli": GlueTask("WNLI", _PAIR, ("0", "1"), ("accuracy",)),
}


def accuracy(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """The fraction of correct predictions."""
    return float(np.mean(predicted_N == label_N))


def f1(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """2·TP/(2·TP + FP + FN) of class 1; 0 where neither side has it."""
    hits = np.sum((predicted_N == 1) & (label_N == 1))
    total = np.sum(predicted_N == 1) + np.sum(label_N == 1)
    return float(2 * hits / total) if total else 0.0


def matthews(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Matthews correlation of two classes, their Pearson correlation; 0 where one is constant."""
    return pearson(predicted_N, label_N)


def pearson(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Σ(x−x̄)(y−ȳ) / √(Σ(x−x̄)²·Σ(y−ȳ)²) in float64; 0 where one side is constant."""
    x_N, y_N = np.asarray(predicted_N, np.float64), np.asarray(label_N, np.float64)
    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(x_N @ y_N / np.sqrt((x_N @ x_N) * (y_N @ y_N)))


def spearman(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Pearson correlation of the ranks; equal values get the mean of their ranks."""
    return pearson(_ranks(predicted_N), _ranks(label_N))


def _ranks(value_N: np.ndarray) -> np.ndarray:
    _, group_N, sizes = np.unique(value_N, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group_N]


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
