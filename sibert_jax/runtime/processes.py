"""The processes of a run: they compare settings, wait for each other and end together.

Every process runs the same program on its own devices; `launch.py` starts them. They exchange notes
(`coordination.py`) about being alive and about why one has ended, so that none waits indefinitely
for one that is gone.
"""

import contextlib
import json
import os
import pathlib
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax

from sibert_jax.errors import ConfigError, TrainingError
from sibert_jax.runtime.coordination import Notes, Unreachable
from sibert_jax.runtime.settings import DistributedConfig
from sibert_jax.runtime.terminal import say

T = TypeVar("T")
POLL_SECONDS = 1.0
APPEAR_SECONDS = 5.0  # how long a network disk may take to show a new file
DAY_SECONDS = 86_400.0  # for work of unknown length; a process that dies is noticed anyway


class ProcessGroup:
    """The processes of a run as seen by one of them; this class is a run of one process."""

    index = 0  # of this process
    count = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the logs."""
        return self.index == 0

    def say(self, text: str) -> None:
        """Prints a line on the terminal, from process 0 only."""
        if self.is_first:
            say(text)

    def barrier(self, name: str, timeout_secs: float = DAY_SECONDS) -> None:
        """Waits until every process has reached the barrier of this name.

        Raises:
          TrainingError: some did not arrive in time; the message says which, and where.
        """

    def agree(self, topic: str, facts: dict[str, object]) -> None:
        """Checks that facts are the same in every process.

        Args:
          topic: what the facts are about; each is compared once.
          facts: JSON values by name.

        Raises:
          ConfigError: they differ; names both processes and the first differing key with both
            values.
        """

    def first_then_others(self, name: str, action: Callable[[], T]) -> T:
        """Runs an action in process 0, then in all others, which find its files on disk."""
        del name
        return action()

    def check_shared(self, directory: pathlib.Path) -> None:
        """Raises ConfigError if the others do not see a directory of process 0."""


SINGLE_PROCESS = ProcessGroup()


class MultiProcessGroup(ProcessGroup):
    """One of several processes. A thread reports that it is alive, and watches the others."""

    def __init__(self, settings: DistributedConfig, notes: Notes):
        self.index, self.count, self.notes = jax.process_index(), jax.process_count(), notes
        self._heartbeat_secs = settings.heartbeat_secs
        self._left = threading.Event()
        self._answered = time.monotonic()  # when process 0 last answered
        for target in (self._talk, self._listen):
            threading.Thread(target=target, name="group", daemon=True).start()

    def barrier(self, name: str, timeout_secs: float = DAY_SECONDS) -> None:
        self._gather(f"barrier/{name}", "here", timeout_secs)

    def _gather(self, topic: str, text: str, timeout_secs: float = DAY_SECONDS) -> dict[int, str]:
        """Returns the texts of all processes, by index; each topic is used once."""
        self.notes.write(topic, self.index, text)
        until = time.monotonic() + timeout_secs
        while len(texts := self.notes.read(topic, self.count, POLL_SECONDS)) < self.count:
            if time.monotonic() > until:
                raise TrainingError(
                    f"not all of the {self.count} processes reached {topic!r} within "
                    f"{timeout_secs:g} s; {_named(sorted(set(range(self.count)) - set(texts)))} "
                    "did not."
                )
        return texts

    def agree(self, topic: str, facts: dict[str, object]) -> None:
        texts = self._gather(f"agree/{topic}", json.dumps(facts))
        first, own = json.loads(texts[0]), json.loads(json.dumps(facts))
        for key in sorted(first.keys() | own.keys()):
            if first.get(key, "absent") != own.get(key, "absent"):
                raise ConfigError(
                    f"process 0 and process {self.index} differ in {topic}: {key} is "
                    f"{first.get(key, 'absent')!r} in process 0 and {own.get(key, 'absent')!r} in "
                    f"process {self.index}; use the same value in all processes."
                )
        self.barrier(f"the same {topic}")

    def first_then_others(self, name: str, action: Callable[[], T]) -> T:
        done = [action()] if self.is_first else []
        self.barrier(name)
        return done[0] if done else action()

    def check_shared(self, directory: pathlib.Path) -> None:
        mark = directory / self._gather("shared", f".{secrets.token_hex(8)}")[0]
        if self.is_first:
            mark.touch()
        self.barrier("a file in the workdir")
        try:
            if not _appears(mark, APPEAR_SECONDS):
                raise ConfigError(
                    f"--workdir={directory} of process {self.index} is not the directory of "
                    "process 0; name one on a file system that all processes share."
                )
            self.barrier("the file in the workdir seen")
        finally:
            if self.is_first:
                mark.unlink()

    def leave(self) -> None:
        """Ends the run cleanly."""
        self.barrier("the end")
        self._left.set()
        jax.distributed.shutdown()

    def fail(self, reason: str) -> None:
        """Tells the others why this process ends."""
        self._left.set()
        with contextlib.suppress(Unreachable):  # process 0 may be the one that is gone
            reason = f"process {self.index} of {self.count} ended it: {reason}"
            self.notes.write("failed", self.index, reason)
            self._linger()

    def await_verdict(self) -> None:
        """Waits for the threads to find which process is gone and to end this one."""
        time.sleep(self._heartbeat_secs + 5 * POLL_SECONDS)

    def _talk(self) -> None:
        """Reports once a second that this process is alive; checks whether the run has ended."""
        beats, heard = 0, {}
        try:
            while not self._left.wait(POLL_SECONDS):
                beats += 1
                self.notes.write("alive", self.index, str(beats))
                failed = next(iter(self.notes.read("failed").values()), None)
                if failed is None and self.is_first:
                    failed = self._silent(heard)
                self._answered = time.monotonic()
                if failed is not None and not self._left.is_set():
                    self.notes.write("failed", self.index, failed)
                    self._end(failed)
        except Unreachable as error:
            if not self._left.is_set():
                self._end(f"process 0, the coordinator, has exited ({one_line(error)}).")

    def _silent(self, heard: dict[int, tuple[str, float]]) -> str | None:
        """Returns a message on silent processes, or None; `heard` holds each one's last beat."""
        now, beats = time.monotonic(), self.notes.read("alive")
        for process in range(self.count):
            beat = beats.get(process, "")
            if process not in heard or heard[process][0] != beat:
                heard[process] = (beat, now)
        silent = [i for i, (_, since) in heard.items() if now - since > self._heartbeat_secs]
        if not silent:
            return None
        return (
            f"{_named(silent)} of {self.count} has not been heard of for "
            f"{self._heartbeat_secs} s (distributed.heartbeat_secs): killed, stopped or cut off."
        )

    def _listen(self) -> None:
        """Ends this process when process 0 stops answering and `_talk` would wait indefinitely."""
        while not self._left.wait(POLL_SECONDS):
            if time.monotonic() - self._answered > self._heartbeat_secs + 2 * POLL_SECONDS:
                self._end(
                    f"process 0, the coordinator, has not answered for {self._heartbeat_secs} s "
                    "(distributed.heartbeat_secs): killed, stopped or cut off."
                )

    def _end(self, reason: str) -> None:
        self._left.set()
        print_error(self, f"the run has ended: {reason} Run again to resume.")
        self._linger()
        exit_now(1)

    def _linger(self) -> None:
        """Keeps process 0, and with it the notes, alive until the others have read them."""
        if self.is_first:
            time.sleep(3 * POLL_SECONDS)


def print_error(group: ProcessGroup, sentence: str) -> None:
    """Prints an error on stderr; with several processes it names this one."""
    who = f" (process {group.index} of {group.count})" if group.count > 1 else ""
    say(f"error{who}: {sentence}")


def exit_now(status: int) -> None:
    """Exits without JAX's exit barrier, which would wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _appears(path: pathlib.Path, timeout_secs: float) -> bool:
    """Tells whether a file exists or appears in time: network disks show new files late."""
    until = time.monotonic() + timeout_secs
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _named(processes: list[int]) -> str:
    return ("process " if len(processes) == 1 else "processes ") + ", ".join(map(str, processes))


def one_line(error: Exception) -> str:
    """Returns the message of an error as one line, truncated."""
    return " ".join(str(error).split())[:300]
