"""The variants of configs/glue.py, and what the command says of one that is not there."""

import pathlib
import subprocess
import sys

import pytest

from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def get_config(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from sibert_jax.configs import glue

    return glue.get_config


@pytest.mark.parametrize("task", TASKS)
def test_every_task_builds_for_every_encoder_and_optimizer(get_config, task):
    names = set()
    for variant in ("", ",arch=bert", ",optim=recipe"):
        run = run_config(resolve(get_config(f"task={task}{variant}")))
        assert run.task.dataset == task
        names.add((run.model.arch, run.optim.name))
    assert names == {("sibert", "lamb"), ("bert", "adamw"), ("sibert", "scale_invariant_sgd")}


@pytest.mark.parametrize("task", TASKS)
def test_the_files_are_those_of_glues_own_archives(get_config, task):
    data = get_config(f"task={task}").data
    folder = TASKS[task].name
    valid, test = ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev", "")
    assert data.path == f"glue/{folder}/train.tsv*"
    assert data.valid_path == f"glue/{folder}/{valid}.tsv*"
    assert data.test_path == (test and f"glue/{folder}/{test}.tsv*")


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("task=sst-2", r"task=sst-2 is unknown; choose one of .*'sst2'"),
        ("sst2", "'sst2' is unknown; there are"),
        ("optim=sgd", "optim=sgd is unknown; choose one of"),
        ("arch=bert,optim=recipe", "optim=recipe is for arch=sibert"),
    ],
)
def test_an_unknown_variant_is_refused_with_those_there_are(get_config, variant, message):
    with pytest.raises(ValueError, match=message):
        get_config(variant)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/glue.py:task=sst"], "error: configs/glue.py:task=sst is unknown; "),
        ([], "give --config to train, or --predict to label new text"),
        (["--config=configs/glue.py", "--predict=x"], "give --config to train, or --predict"),
        (["--predict=new.txt"], "Name the workdir of a fine-tuned run"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(arguments, message, tmp_path):
    command = [sys.executable, "-m", "sibert_jax.main", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
