"""The rates of configs/glue.py learn a small task that is not GLUE's, in its three epochs."""

import json

import numpy as np
import pytest

from sibert_jax.configs import glue
from tests.tasks.classification.conftest import WORDS, train_one

NUM_TRAINING, NUM_HELD_OUT = 2_000, 400


def majority(folder, name: str, count: int, seed: int) -> str:
    """Nine words a line; the label says whether most are of the first half of WORDS."""
    rng, rows = np.random.default_rng(seed), ["sentence\tlabel"]
    for _ in range(count):
        places = rng.integers(0, len(WORDS), 9)
        label = int(np.sum(places < len(WORDS) // 2) > 4)
        rows.append(f"{' '.join(WORDS[place] for place in places)}\t{label}")
    (folder / name).write_text("\n".join(rows) + "\n")
    return str(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sibert", "bert"])
def test_the_rates_learn_a_small_task(arch, vocab, tmp_path):
    config = glue.get_config(f"task=sst2,arch={arch}")
    config.data.path = majority(tmp_path, "train.tsv", NUM_TRAINING, seed=0)
    config.data.valid_path = majority(tmp_path, "dev.tsv", NUM_HELD_OUT, seed=1)
    config.data.vocab, config.model.vocab_size = str(vocab), 48
    config.train.eval_every_steps = 0
    config.train.compilation_cache_dir = ""
    train_one(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["last"]["eval/accuracy"] > 0.9
