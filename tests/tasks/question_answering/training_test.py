"""Runs: what lies in the workdir, what is refused, 32 questions learnt by heart."""

import json
import random

import jax
import pytest

from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.question_answering.__main__ import main as score
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import default_config
from sibert_jax.train.run import train

from .conftest import PIECES, entry, squad

NAMES = ("ada", "bob", "cy", "dan", "eve", "fay", "gil", "hal")
PLACES = ("rome", "bonn", "oslo", "lima", "kiev", "riga", "bern", "cork")
FILES = ["nbest_predictions.json", "null_odds.json", "predictions.json"]


@pytest.fixture(autouse=True)
def _standard_promotion():
    """optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def made_up(unanswerable):
    """32 questions about who is where; each context is longer than a window."""
    rng = random.Random(0)
    paragraphs = []
    for i in range(32):
        names, places = rng.sample(NAMES, 5), rng.sample(PLACES, 5)
        context = ". ".join(f"{a.title()} is in {b.title()}" for a, b in zip(names, places)) + "."
        asked = rng.randrange(5)
        answer = (places[asked].title(), context.index(places[asked].title()))
        more = {"is_impossible": False} if unanswerable else {}
        question = entry(f"q{i}", f"Where is {names[asked]}?", answer, **more)
        if unanswerable and i % 4 == 0:
            absent = next(name for name in NAMES if name not in names)
            question = entry(f"q{i}", f"Where is {absent}?", is_impossible=True)
        paragraphs.append((context, [question]))
    return squad(*paragraphs)


@pytest.fixture
def config(write, tmp_path):
    config = default_config("question_answering")
    pieces = [*PIECES, *sorted({*NAMES, *PLACES, "where", "is"} - set(PIECES))]
    config.data.vocab = str(write("vocab.txt", "".join(f"{piece}\n" for piece in pieces)))
    path = write("train.json", made_up(unanswerable=False))
    config.data.path = config.data.valid_path = str(path)
    config.data.cache_dir = str(tmp_path / "cache")
    config.data.seq_len = 24
    config.data.num_seq_lens = 1
    config.task.max_query_len = 6
    config.task.doc_stride = 8
    config.model.vocab_size = len(pieces)
    config.model.max_len = 24
    config.model.width = 32
    config.model.ffn_width = 64
    config.train.global_batch_size = 16
    config.train.num_epochs = 1.0
    config.train.eval_every_steps = 0
    config.train.compilation_cache_dir = ""
    config.optim.learning_rate = 1e-2
    return config


def train_one(config, directory):
    """Trains on one device; the rows of evaluation."""
    train(config, directory, jax.devices()[:1])
    rows = [json.loads(row) for row in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval/f1" in row]


def test_a_run_leaves_answers_that_score_what_it_says(config, write, tmp_path, capsys):
    path = write("train.json", made_up(unanswerable=True))
    config.task.unanswerable = True
    before, after = train_one(config, tmp_path / "run")
    assert before["step"] == 0
    assert after["eval/total"] == 32
    assert {"eval/HasAns_f1", "eval/NoAns_exact", "eval/best_f1_thresh"} < after.keys()
    written = tmp_path / "run/predictions/train"
    assert sorted(file.name for file in written.iterdir()) == FILES
    capsys.readouterr()
    files = [f"--data={path}", f"--predictions={written}/predictions.json"]
    assert score(files) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["f1"] == pytest.approx(after["eval/f1"])
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["held_out"]["train"]["exact"] == pytest.approx(scores["exact"])
    # A finished run answers again, with another threshold or on another file.
    config.task.null_threshold = -1e9
    train_one(config, tmp_path / "run")
    answers = json.loads((written / "predictions.json").read_text())
    assert set(answers.values()) == {""}
    new = write("new.tsv", "Where is Ada?\tBob is in\u00a0Rome.\n\nWho?\tEve is in Lima.\n")
    lines = predict(tmp_path / "run", str(new), print, jax.devices()[:1])
    assert lines == ["prediction\tquestion", "\tWhere is Ada?", "\tWho?"]


def test_a_file_of_squad_2_needs_the_setting(config, write, tmp_path):
    write("train.json", made_up(unanswerable=True))
    with pytest.raises(DataError, match=r"train.json has questions without answer, but task.unan"):
        train_one(config, tmp_path / "run")


def test_two_files_of_one_name_are_refused(config, tmp_path):
    config.data.test_path = "elsewhere/train.json.xz"
    with pytest.raises(DataError, match=r"name two files 'train', such as .*train.json, whose ans"):
        train_one(config, tmp_path / "run")


def test_strict_stops_at_a_misplaced_answer(config, write, tmp_path):
    content = made_up(unanswerable=False)
    content["data"][0]["paragraphs"][3]["qas"][0]["answers"][0]["answer_start"] += 1
    write("train.json", content)
    config.task.strict = True
    with pytest.raises(DataError, match=r"train.json: question 'q3' has the answer"):
        train_one(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("task", "max_query_len", 21, "data.seq_len=24 leaves no room .* task.max_query_len=21"),
        ("task", "n_best", 0, "task.n_best=0 must be at least 1"),
        ("data", "valid_path", "", "data.valid_path is empty; name a SQuAD file"),
        ("data", "num_seq_lens", 0, "data.num_seq_lens must be at least 1, found 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    config, tmp_path, section, key, value, complaint
):
    config[section][key] = value
    with pytest.raises(ConfigError, match=complaint):
        train_one(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("unanswerable", [False, True])
def test_32_questions_are_learnt_by_heart(config, write, tmp_path, unanswerable):
    write("train.json", made_up(unanswerable))
    config.task.unanswerable = unanswerable
    config.model.width = 64
    config.train.num_epochs = 400.0
    config.train.log_every_steps = 200
    assert train_one(config, tmp_path / "run")[-1]["eval/exact"] == 100.0
