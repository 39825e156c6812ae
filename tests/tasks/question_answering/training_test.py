"""A run, its answers and their scores; slow: 32 questions memorized."""

import json
import random

import jax
import pytest

from sibert_jax.data import DataError
from sibert_jax.tasks.question_answering.__main__ import main as score
from sibert_jax.tools.predict import predict
from tests.builders import write_vocabulary

from .conftest import TOKENS, entry, squad

NAMES = ("ada", "bob", "cy", "dan", "eve", "fay", "gil", "hal")
PLACES = ("rome", "bonn", "oslo", "lima", "kiev", "riga", "bern", "cork")
FILES = ["nbest_predictions.json", "null_odds.json", "predictions.json"]


def generated(unanswerable, count=32):
    """Questions about who is where; each context is longer than a window."""
    rng = random.Random(0)
    paragraphs = []
    for i in range(count):
        names, places = rng.sample(NAMES, 5), rng.sample(PLACES, 5)
        context = ". ".join(f"{a.title()} is in {b.title()}" for a, b in zip(names, places)) + "."
        asked = rng.randrange(5)
        answer = (places[asked].title(), context.index(places[asked].title()))
        question = entry(f"q{i}", f"Where is {names[asked]}?", answer)
        if unanswerable and i % 4 == 0:
            absent = next(name for name in NAMES if name not in names)
            question = entry(f"q{i}", f"Where is {absent}?", is_impossible=True)
        paragraphs.append((context, [question]))
    return squad(*paragraphs)


@pytest.fixture
def config(small_run, tmp_path):
    words = sorted({*NAMES, *PLACES, "where", "is"} - set(TOKENS))
    vocab_size = write_vocabulary(tmp_path / "vocab.txt", [*TOKENS[5:], *words])
    config = small_run("question_answering", tmp_path / "vocab.txt", vocab_size, seq_len=24)
    config.data.path = config.data.valid_path = str(tmp_path / "train.json")
    config.data.cache_dir = str(tmp_path / "cache")
    config.task.max_query_len, config.task.doc_stride = 6, 8
    config.train.global_batch_size = 16
    return config


def test_a_run_writes_answers_that_have_its_scores(config, train_one, write, tmp_path, capsys):
    path = write("train.json", generated(unanswerable=True, count=8))
    config.task.unanswerable, config.task.null_threshold = True, -1e9
    config.model.depth, config.model.scan_layers = 1, False  # compiles faster
    config.optim.name = "adamw"
    train_one(config, tmp_path / "run")
    rows = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    before, after = (row for row in rows if "eval/f1" in row)
    assert before["step"] == 0
    assert after["eval/total"] == 8
    assert {"eval/HasAns_f1", "eval/NoAns_exact", "eval/best_f1_thresh"} < after.keys()
    written = tmp_path / "run/predictions/train"
    assert sorted(file.name for file in written.iterdir()) == FILES
    capsys.readouterr()
    assert score([f"--data={path}", f"--predictions={written}/predictions.json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["f1"] == pytest.approx(after["eval/f1"])
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["held_out"]["train"]["exact"] == pytest.approx(scores["exact"])
    answers = json.loads((written / "predictions.json").read_text())
    assert set(answers.values()) == {""}  # the threshold is low
    new = write("new.tsv", "Where is Ada?\tBob is in\u00a0Rome.\n\nWho?\tEve is in Lima.\n")
    lines = predict(tmp_path / "run", str(new), print, jax.devices()[:1])
    assert lines == ["prediction\tquestion", "\tWhere is Ada?", "\t", "\tWho?"]


def test_two_files_of_one_name_are_refused(config, train_one, write, tmp_path):
    write("train.json", generated(unanswerable=False, count=2))
    config.data.test_path = "elsewhere/train.json.xz"
    with pytest.raises(DataError, match=r"name two sets 'train', whose predictions"):
        train_one(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("unanswerable", [False, True])
def test_32_questions_are_memorized(config, train_one, write, tmp_path, unanswerable):
    config.task.unanswerable = unanswerable
    config.model.width, config.model.ffn_width = 64, 128
    config.train.num_epochs, config.train.log_every_steps = 400.0, 200
    write("train.json", generated(unanswerable))
    train_one(config, tmp_path / "run")
    (scores,) = json.loads((tmp_path / "run/results.json").read_text())["held_out"].values()
    assert scores["exact"] == 100.0, scores
