"""The commands of the page on fine-tuning that are about GLUE run, at a size that fits a test."""

import lzma
import os
import pathlib
import pydoc_data.topics
import re
import shlex
import subprocess
import sys

import pytest

from sibert_jax.configs import glue

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Sentences and pairs.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[0]

TINY = {
    "train.global_batch_size": 8,
    "train.eval_batches": 1,
    "train.compilation_cache_dir": "",
}
PRETRAINING = {
    "model.vocab_size": 512,
    "model.max_len": 32,
    "model.width": 16,
    "model.ffn_width": 32,
    "data.seq_len": 32,
    "data.cache_dir": "cache",
    "train.num_steps": 4,
    "train.eval_every_steps": 0,
    "optim.head.warmup_steps": 1,
}
FINETUNING = {"data.num_seq_lens": 1, "train.num_epochs": 1}


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def test_the_commands_pretrain_finetune_and_predict():
    assert [shlex.split(command)[2] for command in commands()] == ["sibert_jax.main"] * 3
    assert ["--predict" in command for command in commands()] == [False, False, True]


def test_the_variants_of_the_page_are_those_of_the_config():
    words = re.findall(r"`(\w+)`", SECTION.split("Variants of the config:")[1].split("They")[0])
    assert words == [*glue.FILES, "sibert", "bert", "paper", "recipe"]
    assert glue.get_config("task=rte,arch=bert").model.arch == "bert"


def test_the_page_on_data_names_the_files_that_the_config_wants():
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    for task in glue.FILES:
        data = glue.get_config(f"task={task}").data
        train, valid = re.search(
            rf"^\| `{task}` \| `(\S+)` \| ([^|]+) \|", page, re.MULTILINE
        ).groups()
        folder = train.rpartition("/")[0]
        paths = [train, *(f"{folder}/{name}" for name in re.findall(r"`(\S+)`", valid))]
        wanted = [data.path, data.valid_path, *filter(None, [data.test_path])]
        assert [f"{path}*" for path in paths] == wanted


def run(words: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_commands_run_one_after_another(tmp_path):
    topics = sorted(pydoc_data.topics.topics.values())[:60]
    parts = [[" ".join(p.split()) for p in topic.split("\n\n")] for topic in topics]
    text = "\n\n".join("\n".join(p for p in part if len(p) > 40) for part in parts)
    (tmp_path / "text").mkdir()
    for name in ("wiki_train.txt.xz", "wiki_valid.txt.xz"):
        half = len(text) // 2
        content = text[:half] if "train" in name else text[half:]
        (tmp_path / "text" / name).write_bytes(lzma.compress(content.encode()))
    (tmp_path / "glue/SST-2").mkdir(parents=True)
    rows = [f"an object of type {i}\t{i % 2}" for i in range(16)]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "glue/SST-2" / name).write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    (tmp_path / "reviews.txt").write_text("a fine object\nanother type\n")
    for command in commands():
        words = [word.replace("=configs/", f"={ROOT}/configs/") for word in shlex.split(command)]
        if "mini.py" in command:
            words += [f"--config.{key}={value}" for key, value in (TINY | PRETRAINING).items()]
        elif "--config" in command:
            words += [f"--config.{key}={value}" for key, value in (TINY | FINETUNING).items()]
        done = run(words, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
        if "init_from" in command:  # the command says nothing of its size
            assert "model.width=16, model.ffn_width=32, data.seq_len=32" in done.stderr
            assert "encoder taken; head/classifier, head/pooler fresh" in done.stderr
            (tmp_path / "runs/mini").rename(tmp_path / "runs/moved")  # which is missed no more
            again = run(words, tmp_path)
            assert "resuming at step 2 of 2" in again.stderr, again.stderr[-3000:]
    header, *lines = done.stdout.splitlines()
    assert header == "prediction\tsentence"
    assert [line.split("\t")[1] for line in lines] == ["a fine object", "another type"]
    assert {line.split("\t")[0] for line in lines} <= {"0", "1"}
    assert (tmp_path / "runs/sst2/predictions/SST-2_dev.tsv").exists()
