"""32 made-up examples in the columns of each official file are learnt by heart."""

import json

import numpy as np
import pytest

from sibert_jax.tasks.classification.glue import TASKS
from tests.tasks.classification.conftest import WORDS, train_one

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


@pytest.mark.slow
@pytest.mark.parametrize("task", HEADERS)
def test_32_examples_are_learnt_by_heart(config, tmp_path, task):
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(rows(task)) + "\n", encoding="utf-8")
    config.train.num_epochs = 150.0  # WNLI's pairs take longer to tell apart
    config.task.dataset = task
    config.data.path = config.data.valid_path = str(path)
    train_one(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    (scores,) = results["held_out"].values()
    assert {scores[name] for name in TASKS[task].metrics} == {1.0}
