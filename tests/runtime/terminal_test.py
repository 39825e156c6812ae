"""What a user sees: a bar and whole lines on a terminal, lines alone in a file."""

import os
import pathlib
import pty
import pydoc_data.topics
import re
import shlex
import subprocess
import sys
import termios
import textwrap

import pytest

from sibert_jax.runtime.terminal import epochs_line

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = textwrap.dedent("""
    from sibert_jax.runtime.terminal import Progress, say

    say("before")
    progress = Progress(0, 4)
    for step in (1, 2, 3, 4):
        progress.show(step, {"train/loss": 2.5, "perf/tokens_per_second": 1000.0}, 0.5)
        say(f"said at {step}")
        progress.say(f"told at {step}")
    progress.close()
    say("after")
""")
SAID = ["before", *(f"{how} at {i}" for i in range(1, 5) for how in ("said", "told")), "after"]


def on_a_terminal(command, folder=ROOT):
    """What a command writes to a pseudo-terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 120))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=follower, stderr=follower
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        written += part
    os.close(leader)
    assert process.wait() == 0
    return written.decode()


def shown(text):
    """The lines as a terminal would show them in the end: a carriage return begins a line anew."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        screen = ""
        for part in line.split("\r"):
            screen = part + screen[len(part) :]
        lines.append(re.sub(r"\x1b\[\w", "", screen).rstrip())
    return lines


def test_lines_do_not_stick_to_the_bar():
    lines = shown(on_a_terminal([sys.executable, "-c", PROGRAM]))
    bars = [line for line in lines if "step/s" in line or "/4 [" in line]
    assert bars[-1].startswith("100%")
    assert "loss 2.5000, 1,000 tokens/s" in bars[-1]
    assert [line for line in lines if line and line not in bars] == SAID


def test_a_log_file_holds_whole_lines_and_no_bar(tmp_path):
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=log, check=True)
    text = (tmp_path / "log").read_text()
    assert "\r" not in text
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith("step ")] == SAID
    assert "step       3/4  loss 2.5000  1,000 tokens/s  00:00 left" in lines


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((1200, 32, 7500), "1,200 steps of 32 examples: 0.16 epochs of 7,500 steps"),
        ((1, 8, 1), "1 step of 8 examples: 1 epoch of 1 step"),
        ((30, 8, 4), "30 steps of 8 examples: 7.5 epochs of 4 steps"),
        ((1_000_000, 1024, 3), "1,000,000 steps of 1,024 examples: 333,333 epochs of 3 steps"),
    ],
)
def test_a_line_says_how_often_the_examples_are_seen(numbers, line):
    assert epochs_line(*numbers) == line


@pytest.mark.slow
def test_the_command_of_the_text_page_prints_what_it_shows(tmp_path):
    """In a folder with a wrapped novel of one document and nothing else, on a terminal."""
    topics = [" ".join(topic.split()) for topic in sorted(pydoc_data.topics.topics.values())[:60]]
    novel = "\n\n".join("\n".join(textwrap.wrap(topic, 70)) for topic in topics)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/sherlock.txt").write_text(novel)
    page = (ROOT / "docs/text.md").read_text(encoding="utf-8")
    command, shown_there = re.findall(r"```(?:bash)?\n(.*?)```", page, flags=re.DOTALL)
    small = {
        "data.cache_dir": "cache",
        "model.vocab_size": 512,
        "model.width": 16,
        "model.ffn_width": 32,
        "optim.head.warmup_steps": 1,
        "train.num_steps": 4,
        "train.log_every_steps": 1,
        "train.compilation_cache_dir": "",
    }
    settings = [f"--config.{key}={value}" for key, value in small.items()]
    found = shown(on_a_terminal([sys.executable, *shlex.split(command)[1:], *settings], tmp_path))
    for line in shown_there.splitlines():
        pattern = re.sub(r"[\d][\d,.]*", r"[\\d,.]+", re.escape(line).replace(r"\.", "."))
        assert any(re.fullmatch(pattern, line) for line in found), line
    assert [line for line in found if line][-1].startswith("goodput ")
