"""What a user sees: a bar and whole lines on a terminal, lines alone in a file."""

import os
import pty
import re
import subprocess
import sys
import termios
import textwrap

import pytest

from sibert_jax.train.metrics import plan

PROGRAM = textwrap.dedent("""
    from sibert_jax.train.metrics import Progress, say

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


def on_a_terminal(command):
    """What a command writes to a pseudo-terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 120))
    process = subprocess.Popen(command, stdout=follower, stderr=follower)
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
def test_the_plan_says_how_often_the_examples_are_seen(numbers, line):
    assert plan(*numbers) == line


@pytest.mark.slow
def test_the_last_line_of_a_run_stands_by_itself(tmp_path, text):
    settings = {
        "data.path": text,
        "data.cache_dir": tmp_path / "cache",
        "model.vocab_size": 512,
        "model.width": 16,
        "model.ffn_width": 32,
        "optim.head.warmup_steps": 1,
        "train.num_steps": 4,
        "train.log_every_steps": 1,
        "train.compilation_cache_dir": "",
    }
    command = [sys.executable, "-m", "sibert_jax.main", "--config=configs/mini.py"]
    command += [f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    lines = shown(on_a_terminal(command))
    assert any(re.match(r"data\.path: \d+ documents, [\d,]+ tokens in ", line) for line in lines)
    assert any(re.match(r"4 steps of 32 examples: 0\.\d+ epochs", line) for line in lines)
    assert [line for line in lines if line][-1].startswith("goodput ")
