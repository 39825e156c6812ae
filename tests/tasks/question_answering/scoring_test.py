"""The metrics on cases worked out by hand, and on the official predictions."""

import json

import numpy as np
import pytest

from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import (
    best_threshold,
    evaluate,
    exact_match,
    f1,
    normalize_answer,
)

from .conftest import SHARED


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Cat's hat.", "cats hat"),
        ("an  apple\tand a\npear", "apple and pear"),
        ("theatre, another, Ana", "theatre another ana"),
        ("the-end", "theend"),  # punctuation goes first, so this is no article
        ("«the» end", "« » end"),  # not ASCII: it stays, and the article beside it goes
        ("A.", ""),
        ("", ""),
    ],
)
def test_normalization(text, wanted):
    assert normalize_answer(text) == wanted
    assert exact_match(text, wanted) == 1.0
    assert exact_match(text, f"{wanted} all") == 0.0


@pytest.mark.parametrize(
    ("prediction", "gold", "wanted"),
    [
        ("the old oil crisis", "oil crisis", 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("to be or not to be", "to be to", 2 * (3 / 6) * 1 / (3 / 6 + 1)),  # a word counts as often
        ("oil", "gas", 0.0),
        ("Oil!", "the oil", 1.0),
        ("", "oil", 0.0),
        ("oil", "", 0.0),
        ("the", "", 1.0),
    ],
)
def test_f1_is_the_overlap_of_words(prediction, gold, wanted):
    assert f1(prediction, gold) == pytest.approx(wanted)


# Gold answers, predictions, options, metrics.
CASES = {
    "the best gold answer counts, and a missing prediction scores 0": (
        {"a": ["oil crisis", "the crisis"], "b": ["1973"], "c": ["x y"]}, {"a": "Crisis", "c": "x"},
        {"unanswerable": False},
        {"exact": 100 / 3, "f1": 100 * (1 + 0 + 2 / 3) / 3, "total": 3},
    ),
    "texts without words differ in SQuAD 1.1":
        ({"q": ["."]}, {"q": "the"}, {"unanswerable": False}, {"exact": 100, "f1": 0}),
    "and agree in SQuAD 2.0":
        ({"q": ["."]}, {"q": "the"}, {"unanswerable": True}, {"exact": 100, "f1": 100}),
    "the gold answer of d is not its full stop": (
        {"a": ["oil"], "b": [], "c": [], "d": ["gas", "."]},
        {"a": "oil well", "b": "", "c": "gas", "d": ""},
        {"unanswerable": True},
        {"exact": 25, "f1": 100 * (2 / 3 + 1) / 4, "HasAns_exact": 0, "HasAns_total": 2,
         "HasAns_f1": 100 * (2 / 3) / 2, "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2},
    ),
    "above the threshold there is no answer": (
        {"a": ["oil"], "b": []}, {"a": "oil", "b": "gas"},
        {"unanswerable": True, "na_probs": {"a": 0.2, "b": 0.7}, "na_threshold": 0.5},
        {"exact": 100, "best_exact": 100, "best_exact_thresh": 0.2},
    ),
    "above a low one there is none at all": (
        {"a": ["oil"], "b": []}, {"a": "oil", "b": "gas"},
        {"unanswerable": True, "na_probs": {"a": 0.2, "b": 0.7}, "na_threshold": 0.1},
        {"HasAns_exact": 0, "NoAns_exact": 100},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_scores_of_a_file(case):
    golds, predictions, options, wanted = CASES[case]
    found = evaluate(golds, predictions, **options)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, prob = rng.random(30), rng.permutation(30) - 10.0
        has_answer, empty = rng.random(30) < 0.5, rng.random(30) < 0.3
        score = np.where(has_answer, np.where(empty, 0.0, score), empty)
        best, threshold = best_threshold(score, prob, has_answer, empty)
        cuts = np.array([-11.0, *prob, threshold])
        means = 100 * np.where(prob > cuts[:, None], ~has_answer[None], score[None]).mean(axis=1)
        assert best == pytest.approx(means[:-1].max())
        assert threshold == 0.0 or means[-1] == pytest.approx(best)
    best = best_threshold(np.zeros(3), np.ones(3), np.array([True, False, False]), np.zeros(3))
    assert best == (pytest.approx(200 / 3), 0.0)  # no question is answered


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "squad").exists(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("data", "predictions", "wanted"),
    [
        ("dev-v1.1", "predictions_dev-v1.1_bert_ensemble",
         {"exact": 86.206, "f1": 92.196, "total": 10_570}),
        ("dev-v2.0", "predictions_dev-v2.0_bert_single",
         {"exact": 78.742, "f1": 81.775, "total": 11_873,
          "HasAns_exact": 74.106, "HasAns_f1": 80.182, "HasAns_total": 5_928,
          "NoAns_exact": 83.364, "NoAns_f1": 83.364, "NoAns_total": 5_945}),
    ],
)  # fmt: skip
def test_the_official_predictions_have_their_official_scores(data, predictions, wanted, capsys):
    folder = SHARED / "squad"
    files = [f"--data={folder}/{data}.json.xz", f"--predictions={folder}/{predictions}.json.xz"]
    assert main(files) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: round(value, 3) for name, value in found.items()} == wanted
