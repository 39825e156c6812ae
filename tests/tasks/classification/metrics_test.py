"""The official metrics against scipy, scikit-learn's published examples and GLUE's limits."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.tasks.classification.labels import class_weights
from sibert_jax.tasks.classification.metrics import (
    accuracy,
    by_class,
    confusion,
    f1,
    macro_f1,
    matthews,
    pearson,
    rmse,
    spearman,
)

VALUES = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=30
).filter(lambda pairs: all(len(set(side)) > 1 for side in zip(*pairs)))


def test_the_examples_in_scikit_learns_documentation():
    # sklearn.metrics.matthews_corrcoef: -0.33
    assert matthews(np.array([1, 0, 1, 1]), np.array([1, 1, 1, 0])) == pytest.approx(-1 / 3)
    # sklearn.metrics.accuracy_score: 0.5
    assert accuracy(np.array([0, 2, 1, 3]), np.array([0, 1, 2, 3])) == 0.5
    # sklearn.metrics.f1_score of class 1, the binary view of its multilabel example: 0.67
    assert f1(np.array([1, 1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)


@settings(max_examples=30)
@given(VALUES)
def test_correlations_are_scipys_ties_and_all(pairs):
    x, y = np.array(pairs, np.float64).T
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    constant = np.ones(len(x))
    assert pearson(constant, y) == spearman(x, constant) == 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_f1_and_matthews_are_the_formulas_of_the_counts(pairs):
    predicted, labels = np.array(pairs).T
    tp, tn, fp, fn = (
        int(np.sum((predicted == p) & (labels == q))) for p, q in ((1, 1), (0, 0), (1, 0), (0, 1))
    )
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    wanted = (tp * tn - fp * fn) / product**0.5 if product else 0.0
    assert matthews(predicted, labels) == pytest.approx(wanted, abs=1e-12)
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    total = precision + recall
    assert f1(predicted, labels) == pytest.approx(2 * precision * recall / total if total else 0.0)


def test_figures_of_each_class_are_those_of_the_counts():
    predicted, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    counts = confusion(predicted, labels, 4)
    assert counts.tolist() == [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    figures = by_class(counts)
    assert figures["precision"].tolist() == pytest.approx([1 / 2, 1, 2 / 3, 0])
    assert figures["recall"].tolist() == pytest.approx([1 / 2, 1 / 2, 1, 0])
    assert figures["f1"].tolist() == pytest.approx([1 / 2, 2 / 3, 4 / 5, 0])
    assert macro_f1(predicted, labels) == pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3)
    assert rmse(np.array([1.0, 5.0]), np.array([4.0, 1.0])) == pytest.approx((25 / 2) ** 0.5)


def test_balanced_weights_make_classes_alike_in_sum():
    labels = np.array([0] * 6 + [1] * 2)
    weights = class_weights("balanced", ("a", "b"), labels)
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4])
    assert class_weights("b:3", ("a", "b"), labels).tolist() == [1, 3]
