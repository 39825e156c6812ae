"""Pairs of sentences of a made-up language, and a run on them."""

import pathlib

import numpy as np
import pytest

from sibert_jax.config_file import load_config
from tests.builders import prepare_tfds, write_vocabulary

WORDS = tuple(f"w{i}" for i in range(43))
LABELS = ("entailment", "not_entailment")
SMALL = {
    "model.vocab_size": 48,
    "model.max_len": 16,
    "model.width": 16,
    "model.ffn_width": 32,
    "model.depth": 1,
    "model.scan_layers": False,
    "train.global_batch_size": 16,
    "train.compilation_cache_dir": "",
    "train.eval_every_steps": 0,
}
SHARED = pathlib.Path(__file__).parents[4] / "shared/data"


@pytest.fixture(scope="session")
def vocab(tmp_path_factory) -> pathlib.Path:
    """A file of 48 tokens."""
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    write_vocabulary(path, WORDS)
    return path


@pytest.fixture(scope="session")
def write_pairs(tmp_path_factory):
    """Writes pairs of random sentences with labels that have nothing to do with them."""
    directory = tmp_path_factory.mktemp("data")

    def write(name: str, labels=LABELS, num_examples: int = 32, seed: int = 0) -> str:
        rng = np.random.default_rng(seed)
        rows = ["sentence1\tsentence2\tlabel"]
        for i in range(num_examples):
            texts = (" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(2))
            rows.append("\t".join([*texts, str(labels[i % len(labels)])]))
        path = directory / name
        path.write_text("\n".join(rows) + "\n")
        return str(path)

    return write


@pytest.fixture(scope="session")
def make_config(small_run, vocab):
    """Two layers of width 16, batches of 8 pairs."""

    def make():
        config = small_run("classification", vocab, vocab_size=48, seq_len=32)
        config.task.dataset, config.data.path = "rte", "train.tsv"
        config.optim.learning_rate = 5e-2
        config.train.global_batch_size = 8
        return config

    return make


@pytest.fixture
def config(make_config):
    return make_config()


@pytest.fixture
def write(tmp_path):
    """Writes a file of lines into a folder SST-2."""

    def write(*lines: str, name: str = "train.tsv") -> str:
        path = tmp_path / "SST-2" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def prepared_mnli(tmp_path_factory):
    """As TFDS prepares "glue/mnli": labels are numbers, -1 in test sets."""
    keys = ("premise", "hypothesis", "label", "idx")
    sets = {
        "train": [("Rain.", "Sun.", 2, 0), ("Rain.", "Wet.", 0, 1)],
        "test": [("Snow.", "Cold.", -1, 0), ("Ice.", "Cold.", -1, 1)],
    }
    examples = {split: [dict(zip(keys, row)) for row in rows] for split, rows in sets.items()}
    features = dict(zip(keys, (str, str, int, int)))
    directory = tmp_path_factory.mktemp("tensorflow_datasets")
    return prepare_tfds(directory, "Mnli", features, examples, "array_record")


@pytest.fixture
def configure(vocab):
    """The config of a command, with a small model."""

    def make(keys):
        values = SMALL | {"data.vocab": vocab} | keys
        return load_config("classification", [f"--config.{k}={v}" for k, v in values.items()])

    return make
