"""Real training processes to stop, starve and kill.

Each is forked from a server that has imported everything, runs `sibert_jax.main` from its flags
on, and tells which phase it is in.
"""

import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Callable

from tests.train.metrics_rows import rows

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sibert_jax.train.loop", __name__])
CONFIG_FILE = """
import json
import ml_collections

def get_config():
    return ml_collections.ConfigDict(json.load(open({path!r})))
"""


def nothing() -> None:
    """No fault."""


def at_phase(phase: str, *signals: int) -> None:
    """The process sends itself signals when it first enters a phase."""
    from sibert_jax.train import loop

    enter, left = loop.Goodput._enter, list(signals)

    def entered(goodput, name):
        enter(goodput, name)
        while name == phase and left:
            os.kill(os.getpid(), left.pop(0))

    loop.Goodput._enter = entered


def at_line(text: str, *signals: int) -> None:
    """The process sends itself signals when it first says a line with a text in it."""
    from sibert_jax.runtime.processes import ProcessGroup

    say, left = ProcessGroup.say, list(signals)

    def said(hosts, line):
        say(hosts, line)
        while text in line and left:
            os.kill(os.getpid(), left.pop(0))

    ProcessGroup.say = said


class Run:
    """A run in a workdir, started as often as it takes."""

    def __init__(self, config, directory: pathlib.Path):
        self.workdir, self.messages = directory / "run", directory / "messages"
        self._directory = directory
        directory.mkdir(parents=True)
        self.configure(config)

    def configure(self, config):
        """Uses another config from the next start on."""
        path = self._directory / "config.json"
        path.write_text(json.dumps(config.to_dict()))
        (self._directory / "config.py").write_text(CONFIG_FILE.format(path=str(path)))

    def start(self, prepare: Callable[[], None] = nothing) -> "Life":
        """Starts it; `prepare`, a function of a module, is called in the process before."""
        return Life(self._directory, self.workdir, self.messages, prepare)

    def finish(self, prepare: Callable[[], None] = nothing) -> int:
        """Starts it and waits; returns its exit status."""
        return self.start(prepare).wait()

    def said(self) -> str:
        """What the newest start has written to stderr."""
        return self.messages.read_text(errors="replace")

    def digest(self) -> str:
        """A hash of every bit of the state at the end."""
        return (self._directory / "digest").read_text()

    def rows(self) -> list[dict]:
        """What was measured."""
        return rows(self.workdir)

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

    def reach(self, condition: Callable[[], bool], seconds: float = 240.0) -> bool:
        """Waits for a condition; False if the process ended before."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.process.is_alive():
                return False
            assert time.monotonic() < end, self._messages.read_text()
            time.sleep(0.001)
        return True

    def signal(self, number: int):
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def kill(self) -> bool:
        """kill -9; False if the process had ended."""
        self.signal(signal.SIGKILL)
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

    import jax

    from sibert_jax import main
    from sibert_jax.train import loop

    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", f"{directory}/../xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of a short life
    enter, train = loop.Goodput._enter, loop.train

    def noted_enter(goodput, name):
        enter(goodput, name)
        phase.value = name.encode()

    def noted_train(*args, **options):
        state = train(*args, **options)
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(jax.device_get(state)):
            digest.update(leaf.tobytes())
        pathlib.Path(directory, "digest").write_text(f"{int(state.step)} {digest.hexdigest()}")
        return state

    loop.Goodput._enter, loop.train = noted_enter, noted_train
    prepare()
    sys.argv = ["main", f"--config={directory}/config.py", f"--workdir={workdir}"]
    sys.exit(main.main())


def forget_cache(config) -> None:
    """Makes the next start tokenise again."""
    shutil.rmtree(config.data.cache_dir, ignore_errors=True)
