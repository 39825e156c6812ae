"""GLUE's official metrics, as exact formulas in float64."""

import numpy as np


def accuracy(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """The share that is right."""
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
    """Σ(x−x̄)(y−ȳ) / √(Σ(x−x̄)²·Σ(y−ȳ)²); 0 where one side is constant."""
    x_N, y_N = np.asarray(predicted_N, np.float64), np.asarray(label_N, np.float64)
    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(x_N @ y_N / np.sqrt((x_N @ x_N) * (y_N @ y_N)))


def spearman(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Pearson correlation of the ranks; equal values share the mean of their ranks."""
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
