"""Slow: 32 real examples of each task memorized; a small task learned."""

import itertools
import json

import numpy as np
import pytest

from sibert_jax.configs import glue
from sibert_jax.data.text_files import matching_files, read_lines
from sibert_jax.tasks.classification.glue import TASKS

from .conftest import SHARED, WORDS

pytestmark = pytest.mark.slow
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


@pytest.mark.parametrize("optim", ["lamb", "adamw"])
@pytest.mark.parametrize("task", REAL)
def test_32_real_examples_are_memorized(config, train_one, tmp_path, task, optim):
    if not (SHARED / "glue").exists():
        pytest.skip("../shared/data/glue is not there")
    (source,) = matching_files(f"{SHARED}/glue/{REAL[task]}.tsv*")
    lines = list(itertools.islice(read_lines(source), 33))
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config.task.dataset = task
    config.data.path = config.data.valid_path = str(tmp_path / "train.tsv")
    config.data.vocab = str(SHARED / "vocab/bert_base_uncased_vocab.txt")
    config.data.seq_len = config.model.max_len = 128
    config.model.vocab_size, config.model.width, config.model.ffn_width = 30_522, 64, 128
    # A trust ratio is that of the whole table, of which 32 examples have few rows: not too fast.
    config.optim.learning_rate = 1e-2
    config.train.num_epochs = 120.0 if TASKS[task].labels else 240.0
    config.train.log_every_steps = 100
    if optim == "adamw":
        glue.use_bert(config)
        config.optim.learning_rate = 1e-3
    train_one(config, tmp_path / "run")
    (scores,) = json.loads((tmp_path / "run/results.json").read_text())["held_out"].values()
    # Equal scores of STS-B have equal ranks, which predictions do not.
    least = {"pearson": 0.99, "spearman": 0.98}
    assert all(scores[name] >= least.get(name, 1.0) for name in TASKS[task].metrics), scores


def majority(folder, name: str, count: int, seed: int) -> str:
    """Nine words a line; the label says whether most are of the first half of WORDS."""
    rng, lines = np.random.default_rng(seed), ["sentence\tlabel"]
    for _ in range(count):
        indices = rng.integers(0, len(WORDS), 9)
        label = int(np.sum(indices < len(WORDS) // 2) > 4)
        lines.append(f"{' '.join(WORDS[i] for i in indices)}\t{label}")
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


@pytest.mark.parametrize("arch", ["sibert", "bert"])
def test_the_default_rates_learn_a_small_task(arch, vocab, train_one, tmp_path):
    config = glue.get_config(f"task=sst2,arch={arch}")
    config.data.path = majority(tmp_path, "train.tsv", 2_000, seed=0)
    config.data.valid_path = majority(tmp_path, "dev.tsv", 400, seed=1)
    config.data.vocab, config.model.vocab_size = str(vocab), 48
    config.train.eval_every_steps = 0
    config.train.compilation_cache_dir = ""
    train_one(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["last"]["eval/accuracy"] > 0.9
