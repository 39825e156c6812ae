"""Fine-tuned BERTs, exported: `transformers` gives the answers of `--predict`, in names and units.

Needs torch and transformers here or in the Python that HF_PY names.
"""

import csv
import json

import jax
import numpy as np
import pytest

import sibert_jax
from sibert_jax.config_file import load_config
from sibert_jax.interop.__main__ import main
from sibert_jax.tools.predict import predict
from sibert_jax.train.run import train
from tests.builders import write_vocabulary

from .transformers_test import on_their_side

pytestmark = pytest.mark.slow
WORDS = [f"w{i}" for i in range(43)]
SMALL = {
    "model.max_len": 32,
    "model.scan_layers": False,
    "data.num_seq_lens": 1,
    "model.width": 16,
    "model.ffn_width": 32,
    "model.depth": 1,
    "model.init_std": 0.5,  # so that answers differ from text to text
    "train.num_epochs": 1.0,
    "train.global_batch_size": 8,
    "train.eval_every_steps": 0,
    "train.compilation_cache_dir": "",
}


def rows_of(*columns):
    """80 rows of six words, and a value made of the row's number by each function of `columns`."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(80)]
    return [(text, *(value(i) for value in columns)) for i, text in enumerate(texts)]


def write_csv(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


CITIES = ("Bonn", "den Haag", "Köln", "essen, west")
# name: (columns, further keys)
CASES = {
    "classes": (("text", "label"), [lambda i: CITIES[i % 4]], {}),
    "pairs": (
        ("text", "other", "label"),
        [lambda i: f"w{i % 43} w3", lambda i: i % 2],
        {"data.text": "text,other"},
    ),
    "scores": (("text", "label"), [lambda i: 250 + 12.5 * i], {"task.kind": "regression"}),
}


def new_texts(name):
    rows = rows_of(lambda i: f"w{i % 43} w3")
    return [list(row) if name == "pairs" else row[0] for row in rows]


def write_tags(path):
    tags = ("O", "B-PER", "I-PER", "B-LOC")
    sentences = [[f"{w}\t{tags[i % 4]}" for i, w in enumerate(t.split())] for (t,) in rows_of()]
    path.write_text("".join("\n".join(lines) + "\n\n" for lines in sentences))


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """DIR/CASE: run, exported, new.json, and the answers of `transformers`."""
    directory = tmp_path_factory.mktemp("runs")
    write_vocabulary(directory / "vocab.txt", [*WORDS[::2], *(f"##{i}" for i in range(10)), "w"])
    for name in (*CASES, "tags"):
        (here := directory / name).mkdir()
        columns, values, keys = CASES.get(name, ((), (), {}))
        task, file = ("classification", "a.csv") if columns else ("token_classification", "a.conll")
        if columns:
            write_csv(here / file, columns, rows_of(*values))
        else:
            write_tags(here / file)
        keys = SMALL | keys | {"data.path": here / file, "data.vocab": directory / "vocab.txt"}
        words = [f"--config.{key}={value}" for key, value in keys.items()]
        with jax.numpy_dtype_promotion("standard"):
            train(load_config(f"{task}:arch=bert", words), here / "run", jax.devices()[:1])
        new = new_texts(name) if columns else [text.split() for text in new_texts(name)]
        (here / "new.json").write_text(json.dumps(new))
        assert main(["export", str(here / "run"), str(here / "exported")]) == 0
    on_their_side("answer", directory)
    return directory


@pytest.mark.parametrize("name", [*CASES, "tags"])
def test_theirs_gives_the_answers_of_ours(answered, tmp_path, name):
    here = answered / name
    new, theirs = (json.loads((here / f"{x}.json").read_text()) for x in ("new", "answers"))
    keys = {"pairs": ("text", "other"), "tags": ("tokens",)}.get(name, ("text",))
    rows = [dict(zip(keys, text if name == "pairs" else [text])) for text in new]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = predict(here / "run", str(tmp_path / "new.jsonl"), print, jax.devices()[:1])
    ours = [json.loads(line)["prediction"] for line in lines]
    if name != "tags":
        texts = [tuple(text) for text in new] if name == "pairs" else new
        found = sibert_jax.load(here / "run").predict(texts)
        assert [record["prediction"] for record in found] == (
            pytest.approx(ours) if name == "scores" else ours
        )
    if name == "scores":
        ours, theirs = np.array(ours), np.clip(theirs, 250, 1237.5)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
        assert np.ptp(ours) > 100
    else:
        assert ours == theirs
        assert len({tag for row in ours for tag in row} if name == "tags" else set(ours)) > 1
