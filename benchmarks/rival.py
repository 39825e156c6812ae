"""A process with a Python of its own that measures on command, and sleeps while others measure.

Requests and answers are JSON objects, one a line, on the process's stdin and stdout.
"""

import contextlib
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
END_SECONDS = 10.0


class RivalError(Exception):
    """The rival cannot be measured; one sentence."""


class Rival:
    """A long-lived child process.

    Args:
      command: program and arguments; it runs in the root of the repository.

    Raises:
      RivalError: the program is not there.

    Example:
      >>> with Rival([".venv-rivals/bin/python", "-m", "benchmarks.pytorch_process"]) as rival:
      ...     rival.ask("matrix_product", size=2048)["flops_per_second"]
    """

    def __init__(self, command: list[str]):
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
          RivalError: the process has ended, or answers with an error.
        """
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RivalError(self._last_words())
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
