"""What a user sees: a bar and whole lines on a terminal, lines alone in a file."""

import contextlib
import os
import pathlib
import pty
import re
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


def on_a_terminal(command):
    """What a command writes to a pseudo-terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 120))
    process = subprocess.Popen(command, cwd=ROOT, stdout=follower, stderr=follower)
    os.close(follower)
    written = b""
    with contextlib.suppress(OSError):  # Linux: the other end is closed
        while part := os.read(leader, 4096):
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
        ((1, 8, 1), "1 step of 8 examples: 1 epoch of 1 step"),
        ((30, 8, 4), "30 steps of 8 examples: 7.5 epochs of 4 steps"),
        ((1_000_000, 1024, 3), "1,000,000 steps of 1,024 examples: 333,333 epochs of 3 steps"),
    ],
)
def test_a_line_says_how_often_the_examples_are_seen(numbers, line):
    assert epochs_line(*numbers) == line
