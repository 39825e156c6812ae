"""A process that hangs ends, and shows where; one that works is left alone."""

import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def start(body: str) -> subprocess.Popen:
    code = "import ctypes, sys, time\nfrom sibert_jax.train.watchdog import Watchdog\n"
    command = [sys.executable, "-c", code + textwrap.dedent(body)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("phase", "what"), [("step", "a step"), ("evaluation", "the phase 'evaluation'")]
)
def test_a_phase_that_does_not_end_is_shown_and_ends_the_process(phase, what):
    process = start(
        f"""
        def a_long_wait():
            time.sleep(600)

        with Watchdog(0.2) as watchdog:
            watchdog.expect({phase!r})
            a_long_wait()
        """
    )
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "in a_long_wait" in said
    assert "in _watch" in said  # every thread, not just the one that hangs
    assert said.splitlines()[-1].startswith(f"error: {what} has not ended within 0.2 s")


def test_a_hang_that_holds_the_interpreter_ends_too():
    process = start(
        """
        with Watchdog(0.2) as watchdog:
            watchdog.expect("step")
            ctypes.PyDLL(None).sleep(600)
        """
    )
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Timeout" in said


def test_one_that_makes_progress_is_left_alone_and_so_is_a_long_phase():
    process = start(
        """
        with Watchdog(1.0) as watchdog:
            for _ in range(15):
                watchdog.expect("step")
                time.sleep(0.1)
            watchdog.expect("compile")
            time.sleep(1.5)
        time.sleep(0.5)
        sys.exit(7)
        """
    )
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 7


def test_zero_is_no_watchdog():
    process = start("with Watchdog(0.0):\n    time.sleep(0.5)\nsys.exit(7)")
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 7


def test_the_time_that_the_process_was_stopped_is_not_counted():
    process = start(
        """
        with Watchdog(2.0) as watchdog:
            watchdog.expect("step")
            print("ready", file=sys.stderr, flush=True)
            time.sleep(1.5)
        sys.exit(7)
        """
    )
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 7
