"""The metrics on cases worked out by hand, and on the official predictions."""

import json
import pathlib

import numpy as np
import pytest

from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.scoring import (
    best_threshold,
    evaluate,
    exact_match,
    f1,
    normalise_answer,
)

SQUAD = pathlib.Path(__file__).parents[4] / "shared/data/squad"
needs_squad = pytest.mark.skipif(not SQUAD.exists(), reason="../shared/data/squad is not there")


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
def test_normalisation(text, wanted):
    assert normalise_answer(text) == wanted


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


def test_two_texts_without_words_agree_in_squad_2_and_not_in_1():
    golds = {"q": ["."]}
    one = evaluate(golds, {"q": "the"}, unanswerable=False)
    two = evaluate(golds, {"q": "the"}, unanswerable=True)
    assert (one["exact"], one["f1"]) == (100.0, 0.0)
    assert (two["exact"], two["f1"]) == (100.0, 100.0)


def test_each_question_takes_its_best_gold_answer_and_a_missing_one_scores_0():
    golds = {"a": ["oil crisis", "the crisis"], "b": ["1973"], "c": ["x y"]}
    found = {"a": "Crisis", "c": "x"}
    result = evaluate(golds, found, unanswerable=False)
    assert result == {
        "exact": pytest.approx(100 / 3),
        "f1": pytest.approx(100 * (1 + 0 + 2 / 3) / 3),
        "total": 3,
    }


def test_with_unanswerable_questions_both_kinds_are_reported():
    golds = {"a": ["oil"], "b": [], "c": [], "d": ["gas", "."]}
    found = {"a": "oil well", "b": "", "c": "gas", "d": ""}
    result = evaluate(golds, found, unanswerable=True)
    assert result["exact"] == 25.0  # b alone: the gold "." of d does not count
    assert result["f1"] == pytest.approx(100 * (2 / 3 + 1) / 4)
    assert (result["HasAns_exact"], result["HasAns_total"]) == (0.0, 2)
    assert result["HasAns_f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert (result["NoAns_exact"], result["NoAns_f1"], result["NoAns_total"]) == (50.0, 50.0, 2)


def test_a_question_above_the_threshold_counts_as_predicted_to_have_no_answer():
    golds, found = {"a": ["oil"], "b": []}, {"a": "oil", "b": "gas"}
    result = evaluate(
        golds, found, unanswerable=True, na_probs={"a": 0.2, "b": 0.7}, na_threshold=0.5
    )
    assert result["exact"] == 100.0
    assert (result["best_exact"], result["best_exact_thresh"]) == (100.0, 0.2)
    low = evaluate(golds, found, unanswerable=True, na_probs={"a": 0.2, "b": 0.7}, na_threshold=0.1)
    assert (low["HasAns_exact"], low["NoAns_exact"]) == (0.0, 100.0)


def test_the_best_threshold_is_the_best_of_all_that_could_be_tried():
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, prob = rng.random(30), rng.permutation(30) - 10.0
        has_answer, empty = rng.random(30) < 0.5, rng.random(30) < 0.3
        score = np.where(has_answer, np.where(empty, 0.0, score), empty)
        best, threshold = best_threshold(score, prob, has_answer, empty)

        def mean(cut, score=score, prob=prob, has_answer=has_answer):
            return 100 * np.where(prob > cut, ~has_answer, score).mean()

        assert best == pytest.approx(max(mean(cut) for cut in [-11.0, *prob]))
        if threshold != 0.0:
            assert mean(threshold) == pytest.approx(best)


def test_where_no_answer_is_always_best_the_threshold_is_0():
    best = best_threshold(np.zeros(3), np.ones(3), np.array([True, False, False]), np.zeros(3))
    assert best == (pytest.approx(200 / 3), 0.0)


def test_exact_match_looks_at_normalised_texts():
    assert exact_match("The U.S.", "us") == 1.0
    assert exact_match("us all", "us") == 0.0


@needs_squad
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "predictions", "wanted"),
    [
        (
            "dev-v1.1",
            "predictions_dev-v1.1_bert_ensemble",
            {"exact": 86.206, "f1": 92.196, "total": 10_570},
        ),
        (
            "dev-v2.0",
            "predictions_dev-v2.0_bert_single",
            {
                "exact": 78.742,
                "f1": 81.775,
                "total": 11_873,
                "HasAns_exact": 74.106,
                "HasAns_f1": 80.182,
                "HasAns_total": 5_928,
                "NoAns_exact": 83.364,
                "NoAns_f1": 83.364,
                "NoAns_total": 5_945,
            },
        ),
    ],
)
def test_the_official_predictions_have_their_official_scores(data, predictions, wanted, capsys):
    files = [f"--data={SQUAD}/{data}.json.xz", f"--predictions={SQUAD}/{predictions}.json.xz"]
    assert main(files) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: round(value, 3) for name, value in found.items()} == wanted
