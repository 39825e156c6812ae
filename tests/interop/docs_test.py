"""The commands of the page on weights run, in its order."""

import dataclasses
import pathlib
import re
import shlex
import shutil

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

    page = (ROOT / "docs/interop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    commands = "".join(blocks).replace("\\\n", " ").splitlines()
    ran = []
    for command in commands:
        _, _, module, *arguments = shlex.split(command)
        if module == "sibert_jax.interop":
            assert main(arguments) == 0, command
            ran.append(arguments[0])
        else:  # fine-tuning from a workdir has its own tests; the config must be there
            assert module == "sibert_jax.main"
            assert (ROOT / arguments[0].split("=", 1)[1].split(":")[0]).exists()
    assert ran == ["import", "export", "export"]
    assert (tmp_path / "exported_bert/model.safetensors").exists()
    assert (tmp_path / "exported_sibert/modeling_sibert.py").exists()
