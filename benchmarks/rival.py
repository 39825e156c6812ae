"""A process with a Python of its own that measures on command, and sleeps while others measure.

Requests and answers are JSON objects, one a line, on the process's stdin and stdout.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
END_SECONDS = 10.0


class RivalError(Exception):
    """The rival cannot be measured; one sentence."""


class Rival:
    """A long-lived child process.

    Args:
      command: program and arguments; it runs in the root of the repository.
      answer_seconds: an answer that takes longer ends the process; None: no limit.

    Raises:
      RivalError: the program is not there.

    Example:
      >>> with Rival([".venv-rivals/bin/python", "-m", "benchmarks.pytorch_process"]) as rival:
      ...     rival.ask("matrix_product", size=2048)["flops_per_second"]
    """

    def __init__(self, command: list[str], answer_seconds: float | None = None):
        self._answer_seconds = answer_seconds
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by __exit__
        try:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise RivalError(f"{command[0]} cannot be started: {error.strerror}.") from None

    def ask(self, do: str, **arguments) -> dict:
        """Asks and waits for the answer.

        Raises:
          RivalError: the process has ended, is out of time, or answers with an error.
        """
        line, since = "", time.monotonic()
        timer = threading.Timer(self._answer_seconds or 0, self._process.kill)
        if self._answer_seconds is not None:
            timer.start()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            last_words = self._last_words()
            if self._answer_seconds is not None and time.monotonic() - since > self._answer_seconds:
                raise RivalError(f"{do} took more than {self._answer_seconds:g} s.")
            raise RivalError(last_words)
        answer = json.loads(line)
        if "error" in answer:
            raise RivalError(f"{do} failed there: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["no reason given"]
        return f"its process ended with status {status}: {lines[-1].rstrip('.')}."

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        # The end of its input ends it, and what it is at now does not matter.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def serve(answer: Callable[[dict], dict]) -> None:
    """Answers until the input ends: the other end of a `Rival`; needs no package.

    Args:
      answer: from a request to its answer; if it raises, the answer is the error on one line.
    """
    # Libraries that print must not spoil the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answered = answer(json.loads(line))
        except Exception as error:
            answered = {"error": last_line(error)}
        print(json.dumps(answered), file=answers, flush=True)


def last_line(error: Exception) -> str:
    """The error, on one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
