"""Best spans against a search of all, and the answers of questions worked out by hand."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.tasks.question_answering.__main__ import main
from sibert_jax.tasks.question_answering.dataset import read_dataset, read_new_questions
from sibert_jax.tasks.question_answering.features import WindowSizes, build_features
from sibert_jax.tasks.question_answering.predictions import Answerer, best_spans

from .conftest import TOKENIZER, entry, squad

CONTEXT = "The Oil  crisis began in 7."  # 6 tokens and a full stop
SHIFT = 3  # [CLS] who [SEP]


def all_spans(start, end, may_start, may_end, max_len):
    length = len(start)
    spans = [
        (float(start[i] + end[j]), i, j)
        for i in range(length)
        for j in range(i, min(i + max_len, length))
        if may_start[i] and may_end[j]
    ]
    return sorted(spans, key=lambda span: -span[0])


@pytest.mark.parametrize("max_len", [1, 4, 40])
def test_the_spans_are_the_best_of_all(max_len):
    rng = np.random.default_rng(max_len)
    start, end = rng.normal(size=(2, 3, 12)).astype(np.float32)
    may_start, may_end = rng.random((2, 3, 12)) < 0.7
    spans = jax.jit(lambda *x: best_spans(*x, max_len=max_len, count=6))(
        *map(jnp.asarray, (start, end, may_start, may_end))
    )
    for row in range(3):
        wanted = all_spans(start[row], end[row], may_start[row], may_end[row], max_len)[:6]
        found = zip(spans.score_BC[row], spans.first_BC[row], spans.last_BC[row])
        found = [(float(s), int(i), int(j)) for s, i, j in found if np.isfinite(s)]
        assert [span[1:] for span in found] == [span[1:] for span in wanted]
        np.testing.assert_allclose([s for s, *_ in found], [s for s, *_ in wanted], rtol=1e-6)


def test_where_fewer_spans_are_possible_the_rest_is_marked():
    zeros = jnp.zeros((1, 4))
    only = jnp.asarray([[False, True, False, False]])
    spans = best_spans(zeros, zeros, only, only, max_len=1, count=20)
    assert spans.score_BC.shape == (1, 4)
    assert np.isfinite(spans.score_BC).sum() == 1
    assert (int(spans.first_BC[0, 0]), int(spans.last_BC[0, 0])) == (1, 1)


@pytest.fixture
def dev(write):
    """A file with question "a" and, in SQuAD 2.0, "b" without an answer."""

    def make(unanswerable):
        entries = [entry("a", "who", ("Oil", 4)), entry("b", "who")][: 1 + unanswerable]
        return write("dev.json", squad((CONTEXT, entries)))

    return make


@pytest.fixture
def answerer(dev):
    """Of questions with windows of tokens 0..4 and 3..6 of the context each."""

    def make(null_threshold=0.0, unanswerable=False, dataset=None, seq_len=9):
        dataset = dataset or read_dataset(dev(unanswerable))
        sizes = WindowSizes(seq_len=seq_len, max_query_len=4, doc_stride=3)
        options = {"for_training": False, "strict": False, "progress": print}
        features, _ = build_features(dataset, TOKENIZER, sizes, **options)
        options = {"n_best": 3, "unanswerable": unanswerable, "null_threshold": null_threshold}
        return Answerer(dataset, features, **options)

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


def test_the_best_of_all_windows_is_first_and_texts_are_distinct(answerer):
    first = windows((0, 4.0, [(1.0, 1.0, 3, 3), (0.5, 0.0, 1, 2)]))
    second = windows((1, 1.0, [(3.0, 0.0, 0, 0), (0.1, 0, 1, 1)]))
    prediction = answerer().answers([first, second])["a"]
    found = [(c.text, c.score) for c in prediction.candidates]
    assert found == [("began", 3.0), ("Oil  crisis", 0.5), ("in", 0.1)]
    assert prediction.null_score == 1.0  # the lowest
    assert prediction.null_odds == -2.0


def test_a_question_with_a_window_missing_is_not_predicted(answerer):
    made = answerer()
    one, padding = (windows((i, 0.0, [(1.0, 1.0, 0, 0)])) for i in range(2))
    padding["counts"][:] = False
    assert made.answers([one, padding]) == {}
    assert made.metrics({}) == {}


def both(a_null, b_null):
    span = [(1.0, 1.0, 1, 1)]
    return windows((0, a_null, span), (1, a_null, []), (2, b_null, span), (3, b_null, []))


def test_no_answer_is_given_where_its_odds_exceed_the_threshold(answerer):
    made = answerer(0.5, unanswerable=True)
    predictions = made.answers([both(2.5, 2.6)])
    assert [made.text(predictions[key]) for key in "ab"] == ["Oil", ""]
    metrics = made.metrics(predictions)
    assert (metrics["exact"], metrics["HasAns_f1"], metrics["NoAns_f1"]) == (100.0, 100.0, 100.0)
    metrics = answerer(1.0, unanswerable=True).metrics(predictions)
    assert (metrics["exact"], metrics["NoAns_exact"]) == (50.0, 0.0)
    assert (metrics["best_exact"], metrics["best_exact_thresh"]) == (100.0, 0.5)


def test_in_squad_1_there_is_always_an_answer(answerer):
    made = answerer()
    predictions = made.answers([windows((0, 99.0, [(0.0, 0.0, 1, 1)]), (1, 99.0, []))])
    assert made.metrics(predictions) == {"exact": 100.0, "f1": 100.0, "total": 1}


def test_the_files_are_in_the_official_format(answerer, dev, tmp_path, capsys):
    metrics = answerer(unanswerable=True).finish([both(1.0, 3.0)], tmp_path / "out")
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert sorted(read) == ["nbest_predictions.json", "null_odds.json", "predictions.json"]
    assert read["predictions.json"] == {"a": "Oil", "b": ""}
    assert read["null_odds.json"] == {"a": -1.0, "b": 1.0}
    best, none = read["nbest_predictions.json"]["a"]
    assert (best["text"], best["start_logit"], best["end_logit"]) == ("Oil", 1.0, 1.0)
    assert best["probability"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert none["text"] == ""
    assert best["probability"] + none["probability"] == pytest.approx(1.0)
    files = [f"--data={dev(True)}", f"--predictions={tmp_path}/out/predictions.json"]
    assert main([*files, f"--na_probs={tmp_path}/out/null_odds.json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact"] == metrics["exact"] == 100.0


def test_without_gold_answers_there_are_predictions_only(answerer, write, tmp_path):
    new = read_new_questions(write("new.tsv", f"who\t{CONTEXT}\n"))
    made = answerer(dataset=new, seq_len=12)
    assert made.finish([windows((0, 9.0, [(1.0, 1.0, 1, 2)]))], tmp_path / "out") == {}
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"1": "Oil  crisis"}
