"""Metrics of predicted classes and scores. Notation: N examples, C classes."""

import numpy as np


def accuracy(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """The fraction of correct predictions."""
    return float(np.mean(predicted_N == label_N))


def f1(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """F1 of class 1, 2·TP/(2·TP + FP + FN); 0 if class 1 never occurs."""
    hits = np.sum((predicted_N == 1) & (label_N == 1))
    total = np.sum(predicted_N == 1) + np.sum(label_N == 1)
    return float(2 * hits / total) if total else 0.0


def matthews(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Matthews (= Pearson) correlation of binary classes; 0 if one side is constant."""
    return pearson(predicted_N, label_N)


def pearson(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Pearson correlation in float64; 0 if one side is constant."""
    x_N, y_N = np.asarray(predicted_N, np.float64), np.asarray(label_N, np.float64)
    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(x_N @ y_N / np.sqrt((x_N @ x_N) * (y_N @ y_N)))


def spearman(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Spearman correlation: Pearson's of the ranks; ties get their mean rank."""
    return pearson(_ranks(predicted_N), _ranks(label_N))


def _ranks(value_N: np.ndarray) -> np.ndarray:
    _, group_N, sizes = np.unique(value_N, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group_N]


def rmse(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """Root mean square error, √mean((x−y)²), in the unit of the scores."""
    error_N = np.asarray(predicted_N, np.float64) - np.asarray(label_N, np.float64)
    return float(np.sqrt(np.mean(np.square(error_N))))


def macro_f1(predicted_N: np.ndarray, label_N: np.ndarray) -> float:
    """The mean F1 over the classes that occur among labels or predictions."""
    counts_CC = confusion(predicted_N, label_N, int(max(predicted_N.max(), label_N.max())) + 1)
    occurs_C = counts_CC.sum(axis=0) + counts_CC.sum(axis=1) > 0
    return float(np.mean(by_class(counts_CC)["f1"][occurs_C]))


def confusion(predicted_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> np.ndarray:
    """The confusion matrix, (C, C) int counts: true class in rows, predicted in columns."""
    pair_N = label_N * num_classes + predicted_N
    return np.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def by_class(counts_CC: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 per class from `confusion`, (C,) each; 0 where undefined."""
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
