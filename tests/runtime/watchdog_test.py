"""A process that hangs ends, and shows where; one that works is left alone."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.runtime import processes


def start(body: str) -> subprocess.Popen:
    code = "import ctypes, sys, time\nfrom sibert_jax.runtime.watchdog import Watchdog\n"
    command = [sys.executable, "-c", code + textwrap.dedent(body)]
    return subprocess.Popen(command, cwd=processes.ROOT, stderr=subprocess.PIPE, text=True)


def run(body: str) -> tuple[int, str]:
    process = start(body)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


@pytest.mark.parametrize(
    ("phase", "what"), [("step", "a step"), ("evaluation", "the phase 'evaluation'")]
)
def test_a_phase_that_hangs_is_shown_and_ends_the_process(phase, what):
    status, said = run(
        f"""
        def a_long_wait():
            time.sleep(600)

        with Watchdog(0.2) as watchdog:
            watchdog.expect({phase!r})
            a_long_wait()
        """
    )
    assert status == 1
    assert "in a_long_wait" in said
    assert "in _watch" in said  # every thread, not just the one that hangs
    assert said.splitlines()[-1].startswith(f"error: {what} has not ended within 0.2 s")


def test_a_hang_that_holds_the_interpreter_ends_too():
    status, said = run(
        """
        with Watchdog(0.2) as watchdog:
            watchdog.expect("step")
            ctypes.PyDLL(None).sleep(600)
        """
    )
    assert status == 1
    assert "Timeout" in said


def test_progress_long_phases_and_a_watchdog_of_0_seconds_are_left_alone():
    body = """
        with Watchdog(1.0) as watchdog, Watchdog(0.0) as none:
            none.expect("step")
            for _ in range(6):
                watchdog.expect("step")
                time.sleep(0.2)
            watchdog.expect("compile")
            time.sleep(1.2)
        sys.exit(7)
        """
    assert run(body) == (7, "")


def test_the_time_that_the_process_was_stopped_is_not_counted():
    process = start(
        """
        with Watchdog(1.5) as watchdog:
            watchdog.expect("step")
            print("ready", file=sys.stderr, flush=True)
            time.sleep(1.0)
        sys.exit(7)
        """
    )
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.8)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 7


# The command itself, with text on a disk that once does not answer.
HANGING = """
import pathlib, sys, time
from sibert_jax import main
from sibert_jax.data import PretrainingBatches

batch, answered = PretrainingBatches.batch, pathlib.Path({!r})

def a_disk_that_does_not_answer():
    answered.touch()
    time.sleep(100_000)

def sometimes(self, step, rows):
    if step == 7 and not answered.exists():
        a_disk_that_does_not_answer()
    return batch(self, step, rows)

PretrainingBatches.batch = sometimes
sys.exit(main.main())
"""


@pytest.mark.slow
def test_a_run_that_hangs_ends_and_then_resumes(config, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SCRIPT", HANGING.format(str(tmp_path / "answered")))
    config.train.watchdog_secs = 15.0
    group = processes.Group(config, tmp_path / "run")
    try:
        assert group.start(1, devices=1).wait() == [1], group.all_said()
        said = group.said(0)
        assert "in a_disk_that_does_not_answer" in said  # the thread that reads ahead
        assert "in run_from" in said  # and the one that waits for it
        assert said.splitlines()[-1] == (
            "error: a step has not ended within 15 s (train.watchdog_secs); the stacks of all "
            "threads are above. Run again to resume from the newest checkpoint."
        )
        assert group.start(1, devices=1).wait() == [0], group.all_said()
        assert "resuming at step 5 of 12" in group.said(0)
    finally:
        group.close()
