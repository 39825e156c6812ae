"""From windows' spans to the answers of questions: worked out by hand."""

import json
import math

import numpy as np
import pytest

from sibert_jax.data import Tokenizer
from sibert_jax.tasks.question_answering.answers import Answerer
from sibert_jax.tasks.question_answering.dataset import (
    read_dataset,
    read_na_probs,
    read_new_questions,
)
from sibert_jax.tasks.question_answering.features import WindowSizes, build_features

from .conftest import PIECES, entry, squad

TOKENIZER = Tokenizer(PIECES)
CONTEXT = "The Oil  crisis began in 7."  # 6 pieces and a full stop
SHIFT = 3  # [CLS] who [SEP]


@pytest.fixture
def answerer(write):
    """Question "a" and "b" (no answer), each with windows of pieces 0..4, 3..6 of the context."""

    def make(null_threshold=0.0, **more):
        content = squad(
            (CONTEXT, [entry("a", "who", ("Oil", 4), **more), entry("b", "who", **more)])
        )
        if not more:
            del content["data"][0]["paragraphs"][0]["qas"][1]
        dataset = read_dataset(write("dev.json", content))
        sizes = WindowSizes(seq_len=9, max_query_len=4, doc_stride=3)
        features, _ = build_features(
            dataset, TOKENIZER, sizes, for_training=False, strict=False, progress=print
        )
        assert features.window_start.tolist() == [0, 3] * len(dataset.questions)
        return Answerer(
            dataset,
            features,
            n_best=3,
            unanswerable=bool(more),
            null_threshold=null_threshold,
        )

    return make


def windows(*rows, count=2):
    """Results of a batch; a row is window, null score, [(start logit, end logit, first, last)]."""
    spans = [(row[2] + [(-math.inf, 0.0, 0, 0)] * count)[:count] for row in rows]
    start, end, first, last = np.moveaxis(np.array(spans, np.float64), -1, 0)
    return {
        "window": np.array([row[0] for row in rows]),
        "counts": np.ones(len(rows), bool),
        "null_score": np.array([row[1] for row in rows]),
        "start_logit": start,
        "end_logit": end,
        "score_BC": start + end,
        "first_BC": first.astype(int) + SHIFT,
        "last_BC": last.astype(int) + SHIFT,
    }


def test_the_answer_is_the_text_as_it_stands_in_the_context(answerer):
    results = [windows((0, 0.0, [(1.0, 2.0, 1, 2)])), windows((1, 0.0, [(0.5, 0.5, 0, 1)]))]
    prediction = answerer().answers(results)["a"]
    assert [c.text for c in prediction.candidates] == ["Oil  crisis", "began in"]
    assert prediction.candidates[0].score == 3.0


def test_the_best_of_all_windows_comes_first_and_no_text_comes_twice(answerer):
    rows = windows(
        (0, 4.0, [(1.0, 1.0, 3, 3), (0.5, 0.0, 0, 0)]), (1, 1.0, [(3.0, 0.0, 0, 0), (0.1, 0, 1, 1)])
    )
    prediction = answerer().answers([rows])["a"]
    assert [(c.text, c.score) for c in prediction.candidates] == [
        ("began", 3.0),
        ("The", 0.5),
        ("in", 0.1),
    ]
    assert prediction.null_score == 1.0  # the lowest
    assert prediction.null_odds == -2.0


def test_a_question_with_a_window_missing_is_not_predicted(answerer):
    made = answerer()
    one = windows((0, 0.0, [(1.0, 1.0, 0, 0)]))
    assert made.answers([one]) == {}
    assert made.metrics({}) == {}
    filled_up = windows((1, 0.0, [(1.0, 1.0, 0, 0)]))
    filled_up["counts"][:] = False
    assert made.answers([one, filled_up]) == {}


TWO = {"is_impossible": False}


def both(a_null, b_null):
    span = [(1.0, 1.0, 1, 1)]
    return windows((0, a_null, span), (1, a_null, []), (2, b_null, span), (3, b_null, []))


def test_no_answer_is_given_where_its_odds_exceed_the_threshold(answerer):
    made = answerer(0.5, **TWO)
    predictions = made.answers([both(2.5, 2.6)])
    assert [made.text(predictions[key]) for key in "ab"] == ["Oil", ""]
    metrics = made.metrics(predictions)
    assert (metrics["exact"], metrics["HasAns_f1"], metrics["NoAns_f1"]) == (100.0, 100.0, 100.0)
    strict = answerer(1.0, **TWO)
    predictions = strict.answers([both(2.5, 2.6)])
    metrics = strict.metrics(predictions)
    assert (metrics["exact"], metrics["NoAns_exact"]) == (50.0, 0.0)
    assert (metrics["best_exact"], metrics["best_exact_thresh"]) == (100.0, 0.5)


def test_in_squad_1_there_is_always_an_answer(answerer):
    made = answerer()
    predictions = made.answers([windows((0, 99.0, [(0.0, 0.0, 1, 1)]), (1, 99.0, []))])
    assert made.text(predictions["a"]) == "Oil"
    assert made.metrics(predictions) == {"exact": 100.0, "f1": 100.0, "total": 1}


def test_the_files_are_in_the_official_format(answerer, tmp_path):
    made = answerer(**TWO)
    metrics = made.finish([both(1.0, 3.0)], tmp_path / "out")
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert sorted(read) == ["nbest_predictions.json", "null_odds.json", "predictions.json"]
    assert read["predictions.json"] == {"a": "Oil", "b": ""}
    assert read["null_odds.json"] == {"a": -1.0, "b": 1.0}
    assert read_na_probs(tmp_path / "out/null_odds.json", made.dataset) == read["null_odds.json"]
    best, none = read["nbest_predictions.json"]["a"]
    assert (best["text"], best["start_logit"], best["end_logit"]) == ("Oil", 1.0, 1.0)
    assert best["probability"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert none["text"] == ""
    assert best["probability"] + none["probability"] == pytest.approx(1.0)
    assert metrics["exact"] == 100.0


def test_a_disk_that_fills_up_leaves_the_old_file_whole(answerer, tmp_path, monkeypatch):
    made = answerer(**TWO)
    made.finish([both(1.0, 3.0)], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        made.finish([both(9.0, 3.0)], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_without_gold_answers_there_are_predictions_and_no_metrics(write, tmp_path):
    dataset = read_new_questions(write("new.tsv", f"who\t{CONTEXT}\n"))
    sizes = WindowSizes(seq_len=12, max_query_len=4, doc_stride=3)
    features, _ = build_features(
        dataset, TOKENIZER, sizes, for_training=False, strict=False, progress=print
    )
    made = Answerer(dataset, features, n_best=3, unanswerable=False, null_threshold=0.0)
    assert made.finish([windows((0, 9.0, [(1.0, 1.0, 1, 2)]))], tmp_path / "out") == {}
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"1": "Oil  crisis"}
