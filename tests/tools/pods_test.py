"""The commands of docs/pods.md: those by hand run, and what launchers are given is a legal run."""

import os
import re
import subprocess
import sys

import pytest

from sibert_jax.config_file import load_config
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from tests.docs_test import PRETRAINING, TEXT
from tests.runtime.processes import ROOT, free_port

PAGE = (ROOT / "docs/pods.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The commands of the page, each on one line."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(re.sub(r"\\\n", " ", block).split()) for block in found]


@pytest.mark.slow
def test_the_two_commands_by_hand_train_together(config, tmp_path):
    # Not the demo's own text, which takes long to gather.
    tiny = PRETRAINING | TEXT
    tiny |= {"data.path": config.data.path, "data.cache_dir": config.data.cache_dir}
    port = str(free_port())
    processes = []
    try:
        for command in blocks("bash"):
            words = command.replace("12345", port).replace("runs/", f"{tmp_path}/").split()
            words += [f"--config.{key}={value}" for key, value in tiny.items()]
            processes.append(
                subprocess.Popen(
                    [sys.executable, *words[1:]],
                    cwd=ROOT,
                    env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
                    stderr=subprocess.PIPE,
                )
            )
        said = [process.communicate(timeout=300)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert "step       2" in said[0]
    assert (tmp_path / "pair/checkpoints/2").is_dir()


@pytest.mark.parametrize("command", blocks("sh"))
def test_what_a_launcher_is_given_is_a_legal_run(command):
    command = command.replace("$OMPI_COMM_WORLD_SIZE", "4").replace("$OMPI_COMM_WORLD_RANK", "3")
    assert "-m sibert_jax.main" in command
    name = re.search(r"--config=(\w+)", command)[1]
    config = load_config(name, re.findall(r"--config\.\S+", command))
    run = run_config(resolve(config))
    assert run.distributed.start in ("auto", "explicit")
    assert run.mesh.fsdp == 8
