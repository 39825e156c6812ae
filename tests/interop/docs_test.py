"""The commands of the page on weights run as printed, in its order, from a folder of their own."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(45))]


def test_the_commands_of_the_page_run(cfg, encoder_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{piece}\n" for piece in PIECES))
    hugging_face.write("bert-base-uncased", cfg, encoder_params(cfg), head="")
    sibert = dataclasses.replace(cfg, arch="sibert", norm_eps=1e-6)
    exported.write("sibert", sibert, encoder_params(sibert), "a test")
    for directory in ("bert-base-uncased", "sibert"):
        shutil.copyfile(vocabulary, tmp_path / directory / "vocab.txt")
    assert main(["import", "sibert", "runs/mini"]) == 0
    write_sst2(tmp_path / "glue/SST-2")

    page = (ROOT / "docs/interop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    commands = "".join(blocks).replace("\\\n", " ").splitlines()
    ran = []
    for command in commands:
        _, _, module, *arguments = shlex.split(command)
        if module == "sibert_jax.interop":
            assert main(arguments) == 0, command
        else:
            train(arguments)
        ran.append(arguments[0].split(":")[0])
    assert ran == ["import", "--config=glue", "export", "export", "export"]
    assert (tmp_path / "exported_sibert/modeling_sibert.py").exists()
    found = {}
    for name in ("exported_bert", "exported_again"):
        found[name] = json.loads((tmp_path / name / "config.json").read_text())
    assert found["exported_bert"]["architectures"] == ["BertForSequenceClassification"]
    assert found["exported_bert"]["id2label"] == {"0": "0", "1": "1"}
    assert found["exported_again"]["architectures"] == ["BertModel"]


def write_sst2(directory: pathlib.Path) -> None:
    directory.mkdir(parents=True)
    for name, count in (("train", 40), ("dev", 20)):
        rows = [f"w{i % 45} w{i % 7} w{i % 2}\t{i % 2}" for i in range(count)]
        (directory / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")


def train(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sibert_jax.main", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
