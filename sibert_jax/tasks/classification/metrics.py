"""Scores of predicted classes and scores. Letters: N examples, C classes."""

import numpy as np


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


def rmse(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """√mean((x−y)²), in the unit of the scores."""
    error_N = np.asarray(predicted_N, np.float64) - np.asarray(label_N, np.float64)
    return float(np.sqrt(np.mean(np.square(error_N))))


def macro_f1(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """The mean F1 of the classes that occur, predicted or not."""
    counts_CC = confusion(predicted_N, label_N, int(max(predicted_N.max(), label_N.max())) + 1)
    occurs_C = counts_CC.sum(axis=0) + counts_CC.sum(axis=1) > 0
    return float(np.mean(by_class(counts_CC)["f1"][occurs_C]))


def confusion(predicted_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, C) int: how many examples of the class of the row were given that of the column."""
    pair_N = label_N * num_classes + predicted_N
    return np.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def by_class(counts_CC: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, (C,) each, 0 where undefined; from `confusion`."""
    hits_C = np.diagonal(counts_CC).astype(np.float64)
    given_C, true_C = counts_CC.sum(axis=0), counts_CC.sum(axis=1)
    return {
        "precision": hits_C / np.maximum(given_C, 1),
        "recall": hits_C / np.maximum(true_C, 1),
        "f1": 2 * hits_C / np.maximum(given_C + true_C, 1),
    }


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "rmse": rmse,
}
