"""Every block of code and every command of the README runs, at a size that fits a test."""

import os
import pathlib
import pydoc_data.topics
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

TINY = {
    "model.vocab_size": 512,
    "model.width": 16,
    "model.depth": 2,
    "model.num_heads": 2,
    "model.ffn_width": 32,
    "data.source": "text",
    "data.valid_path": "",
    "data.valid_fraction": 0.25,
    "data.vocab": "",
    "optim.head.warmup_steps": 1,
    "train.num_steps": 4,
    "train.global_batch_size": 8,
    "train.log_every_steps": 2,
    "train.eval_every_steps": 2,
    "train.eval_batches": 1,
    "train.compilation_cache_dir": "",
    "checkpoint.every_steps": 2,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Commands of the shell blocks, each on one line; those of `make demo` as make prints them."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    plain = [line.split("#")[0].strip() for line in lines if line.strip()]
    demo = subprocess.run(
        ["make", "-n", "-o", ".venv/installed", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    steps = [line for line in demo.stdout.splitlines() if line.startswith(".venv/bin/python -m")]
    assert len(steps) == 2
    return [line for line in plain if not line.startswith("make ")] + steps


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> pathlib.Path:
    documents = []
    for topic in sorted(pydoc_data.topics.topics.values())[:60]:
        paragraphs = [" ".join(part.split()) for part in topic.split("\n\n")]
        documents.append("\n".join(part for part in paragraphs if len(part) > 40))
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


WORKDIRS = ("runs/mine", "runs/demo", "runs/large")


def test_every_command_is_of_one_of_the_runs():
    assert all(sum(workdir in command for workdir in WORKDIRS) == 1 for command in commands())


@pytest.mark.parametrize(
    "workdir", [WORKDIRS[0], *(pytest.param(w, marks=pytest.mark.slow) for w in WORKDIRS[1:])]
)
def test_shell_commands_run(text, workdir):
    folder = text.parent
    overrides = TINY | {"data.path": text, "data.cache_dir": folder / "cache"}
    for command in (command for command in commands() if workdir in command):
        words = shlex.split(command)
        module = words[words.index("-m") + 1]
        arguments = [re.sub(r"runs/", f"{folder}/runs/", word) for word in words[3:]]
        if module == "sibert_jax.main":
            arguments += [f"--config.{key}={value}" for key, value in overrides.items()]
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "8" if "config.mesh" in command else "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
        if module == "sibert_jax.report":
            assert (folder / workdir / "report/report.png").stat().st_size > 10_000


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
