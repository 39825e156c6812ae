"""The commands of the page on fine-tuning that are about SQuAD run, at a size that fits a test."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from .conftest import PIECES
from .training_test import NAMES, PLACES, made_up

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Question answering.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[0]


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def test_there_are_commands_to_train_to_score_and_to_predict():
    modules = [shlex.split(command)[2] for command in commands()]
    assert modules == ["sibert_jax.main", "sibert_jax.tasks.question_answering", "sibert_jax.main"]


@pytest.mark.slow
def test_the_commands_run_one_after_another(tmp_path):
    pieces = [*PIECES, *sorted({*NAMES, *PLACES, "where", "is"} - set(PIECES))]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (tmp_path / "squad").mkdir()
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / "squad" / name).write_text(json.dumps(made_up(unanswerable=False)))
    (tmp_path / "questions.tsv").write_text("Where is Ada?\tBob is in Rome and Ada is in Bonn.\n")
    tiny = {
        "checkpoint.init_from": "",
        "data.vocab": "vocab.txt",
        "data.cache_dir": "cache",
        "data.num_seq_lens": 1,
        "model.vocab_size": len(pieces),
        "model.width": 16,
        "model.ffn_width": 32,
        "train.num_epochs": 1,
        "train.compilation_cache_dir": "",
    }
    overrides = [f"--config.{key}={value}" for key, value in tiny.items()]
    for command in commands():
        words = [word.replace("=configs/", f"={ROOT}/configs/") for word in shlex.split(command)]
        if any(word.startswith("--config=") for word in words):
            words += overrides
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "8"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    header, line = done.stdout.splitlines()
    assert header == "prediction\tquestion"
    answer, question = line.split("\t")
    assert question == "Where is Ada?"
    assert answer in "Bob is in Rome and Ada is in Bonn."
