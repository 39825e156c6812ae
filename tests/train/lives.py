"""Real training processes to stop, starve and kill.

Each is forked from a server that has imported everything, runs `sibert_jax.main` from its flags
on, and notes the phase that it is in.
"""

import multiprocessing
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import jax

from sibert_jax import main
from sibert_jax.checkpoint import Checkpoints
from sibert_jax.runtime.processes import ProcessGroup
from sibert_jax.runtime.watchdog import Watchdog
from tests.train.started import bare_trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sibert_jax.train.run", __name__])
CONFIG_FILE = """
import json
import ml_collections

def get_config():
    return ml_collections.ConfigDict(json.loads({!r}))
"""


def nothing() -> None:
    """No fault."""


def on_call(owner: type, name: str, act: Callable[..., None]) -> None:
    """Wraps a method of a class for the rest of a process: `act` is told of every call."""
    original = getattr(owner, name)

    def wrapped(self, *args):
        act(*args)
        return original(self, *args)

    setattr(owner, name, wrapped)


def at_call(owner: type, name: str, text: str, time: int, *signals: int) -> None:
    """The process sends itself signals at the `time`-th call with a text in the argument."""
    seen = []

    def act(argument):
        seen.append(text in argument)
        if text in argument and sum(seen) == time:
            for number in signals:
                os.kill(os.getpid(), number)

    on_call(owner, name, act)


def at_phase(phase: str, time: int, *signals: int) -> None:
    """The process sends itself signals when it enters a phase for the `time`-th time."""
    at_call(Watchdog, "expect", phase, time, *signals)


def at_line(text: str, *signals: int) -> None:
    """The process sends itself signals when it first says a line with a text in it."""
    at_call(ProcessGroup, "say", text, 1, *signals)


class Run:
    """A run in a workdir, started as often as it takes."""

    def __init__(self, config, directory: pathlib.Path):
        self.workdir, self.messages = directory / "run", directory / "messages"
        self._directory, self._config = directory, config
        directory.mkdir(parents=True)
        (directory / "config.py").write_text(CONFIG_FILE.format(config.to_json()))

    def start(self, prepare: Callable[[], None] = nothing) -> "Life":
        """Starts it; `prepare`, a function of a module, is called in the process before."""
        return Life(self._directory, self.workdir, self.messages, prepare)

    def finish(self, prepare: Callable[[], None] = nothing) -> int:
        """Starts it and waits; returns its exit status."""
        return self.start(prepare).wait()

    def said(self) -> str:
        """What the newest start has written to stderr."""
        return self.messages.read_text(errors="replace")

    def state(self):
        """The whole state of the newest checkpoint, on the host."""
        with Checkpoints(self.workdir / "checkpoints", self._config.checkpoint.keep) as checkpoints:
            step = checkpoints.latest_step()
            return jax.device_get(bare_trainer(self._config).restore(checkpoints, step))

    def steps_saved(self) -> list[int]:
        """Steps of the checkpoints."""
        folder = self.workdir / "checkpoints"
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdigit())


class Life:
    """One process of a run."""

    def __init__(self, directory, workdir, messages, prepare):
        self._phase = CONTEXT.Array("c", b"start".ljust(16))
        arguments = (str(directory), str(workdir), str(messages), self._phase, prepare)
        self.process = CONTEXT.Process(target=_live, args=arguments)
        self._messages = messages
        messages.write_text("")
        self.process.start()

    @property
    def phase(self) -> str:
        return self._phase.value.decode()

    def reach(self, phase: str, seconds: float = 240.0) -> bool:
        """Waits for a phase; False if the process ended before."""
        end = time.monotonic() + seconds
        while self.phase != phase:
            if not self.process.is_alive():
                return False
            assert time.monotonic() < end, self._messages.read_text()
            time.sleep(0.001)
        return True

    def kill(self) -> bool:
        """kill -9; False if the process had ended."""
        if self.process.is_alive():
            self.process.kill()
        return self.wait() == -signal.SIGKILL

    def wait(self, seconds: float = 240.0) -> int:
        """The exit status."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(self._messages.read_text())
        return self.process.exitcode


def _live(directory, workdir, messages, phase, prepare):
    """The whole life of a process."""
    file = os.open(messages, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)

    jax.config.update("jax_num_cpu_devices", 1)

    on_call(Watchdog, "expect", lambda name: setattr(phase, "value", name.encode()))
    prepare()
    sys.exit(main.main([f"--config={directory}/config.py", f"--workdir={workdir}"]))
