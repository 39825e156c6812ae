"""32 examples of each task are learnt by heart: of the real files, and made-up ones."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from sibert_jax.configs import glue
from sibert_jax.data.text_files import matching_files, read_lines
from sibert_jax.tasks.classification.glue import TASKS
from tests.tasks.classification.conftest import WORDS, train_one

SHARED = pathlib.Path(__file__).parents[4] / "shared/data"
REAL = {
    "cola": "CoLA/train",
    "sst2": "SST-2/train",
    "mrpc": "MRPC/train",
    "qqp": "QQP/part",
    "stsb": "STS-B/train",
    "mnli": "MNLI/train_part",
    "rte": "RTE/train",
    "wnli": "WNLI/train",
}
# The first lines of the official files; "label" in `rows` fills the column of that meaning.
HEADERS = {
    "cola": ("index", "sentence", "label"),
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "qnli": ("index", "question", "sentence", "label"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "wnli": ("index", "sentence1", "sentence2", "label"),
}
FIRST, LAST = ("#1 String", "question1", "question", "sentence1"), ("#2 String", "question2")


def rows(task: str) -> list[str]:
    """A header and 32 examples; of WNLI each second one is its neighbour with one word changed.

    Such two have opposite labels there, and no word tells which.
    """
    rng, header, lines = np.random.default_rng(0), HEADERS[task], []
    for i in range(32):
        if i % 2 == 0 or task != "wnli":
            first, second = (list(rng.choice(WORDS, rng.integers(3, 8))) for _ in range(2))
        else:
            second = [*second[:-1], WORDS[(WORDS.index(second[-1]) + 1) % len(WORDS)]]
        label = TASKS[task].labels[i % 2]
        fields = dict.fromkeys(header, str(i)) | {name: " ".join(first) for name in FIRST}
        fields |= {name: " ".join(second) for name in (*LAST, "sentence2", "sentence")}
        fields |= dict.fromkeys(("label", "Quality", "is_duplicate"), label)
        lines.append("\t".join(fields[name] for name in header))
    return ["\t".join(header), *lines]


def learnt(config, path, directory) -> dict[str, float]:
    """The official metrics of a run on the examples that it was trained on."""
    config.data.path = config.data.valid_path = str(path)
    train_one(config, directory)
    (scores,) = json.loads((directory / "results.json").read_text())["held_out"].values()
    return {name: scores[name] for name in TASKS[config.task.dataset].metrics}


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["lamb", "adamw"])
@pytest.mark.parametrize("task", REAL)
def test_32_real_examples_are_learnt_by_heart(config, tmp_path, task, optim):
    if not (SHARED / "glue").exists():
        pytest.skip("../shared/data/glue is not there")
    (source,) = matching_files(f"{SHARED}/glue/{REAL[task]}.tsv*")
    lines = list(itertools.islice(read_lines(source), 33))
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config.task.dataset = task
    config.data.vocab = str(SHARED / "vocab/bert_base_uncased_vocab.txt")
    config.data.seq_len = config.model.max_len = 128
    config.model.vocab_size, config.model.width, config.model.ffn_width = 30_522, 64, 128
    # A trust ratio is that of the whole table, of which 32 examples have few rows: not too fast.
    config.optim.learning_rate = 1e-2
    config.train.num_epochs = 120.0 if TASKS[task].labels else 240.0
    config.train.log_every_steps = 100
    config.train.eval_every_steps = 0
    if optim == "adamw":
        glue.use_bert(config)
        config.optim.learning_rate = 1e-3
    scores = learnt(config, tmp_path / "train.tsv", tmp_path / "run")
    if task == "stsb":  # where scores are equal their ranks are not to be told apart
        assert scores["pearson"] > 0.99, scores
        assert scores["spearman"] > 0.98, scores
    else:
        assert set(scores.values()) == {1.0}, scores


@pytest.mark.slow
@pytest.mark.parametrize("task", HEADERS)
def test_32_made_up_examples_are_learnt_by_heart(config, tmp_path, task):
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(rows(task)) + "\n", encoding="utf-8")
    config.optim.learning_rate = 2e-2
    config.train.num_epochs = 400.0 if task == "wnli" else 150.0  # pairs that differ in a word
    config.task.dataset = task
    assert set(learnt(config, path, tmp_path / "run").values()) == {1.0}
