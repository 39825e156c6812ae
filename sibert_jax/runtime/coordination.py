"""Notes that the processes of a run exchange from any thread, without the devices.

JAX's coordination service has no public interface for this, and a collective in a thread would get
between those of the training step, which must have the same order in every process. So process 0
keeps the notes and serves them on its own port. One initial collective tells the others its address
and an access key.
"""

import contextlib
import json
import secrets
import socket
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

GREETING_BYTES = 1024
ASK_SECONDS = 10.0  # time limit for a connection to send its question


class Unreachable(OSError):
    """Raised when process 0, which keeps the notes, does not answer."""


class Notes:
    """The notes in process 0: one text per topic and process."""

    def __init__(self):
        self._topics: dict[str, dict[int, str]] = {}
        self._changed = threading.Condition()

    def write(self, topic: str, index: int, text: str) -> None:
        """Sets the note of process `index`, replacing its earlier one."""
        with self._changed:
            self._topics.setdefault(topic, {})[index] = text
            self._changed.notify_all()

    def read(self, topic: str, at_least: int = 0, wait_secs: float = 0.0) -> dict[int, str]:
        """Returns the notes by process, the earliest first.

        Args:
          topic: the topic of the notes.
          at_least: number of notes to wait for.
          wait_secs: time limit, after which fewer are returned.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._topics.get(topic, {})) >= at_least, timeout=wait_secs
            )
            return dict(self._topics.get(topic, {}))


class RemoteNotes(Notes):
    """The notes as seen by another process; its methods raise `Unreachable`."""

    def __init__(self, address: tuple[str, int], key: str, timeout_secs: float):
        self._address, self._key, self._timeout_secs = address, key, timeout_secs

    def write(self, topic: str, index: int, text: str) -> None:
        self._ask(0.0, "write", topic, index, text)

    def read(self, topic: str, at_least: int = 0, wait_secs: float = 0.0) -> dict[int, str]:
        answer = self._ask(wait_secs, "read", topic, at_least, wait_secs)
        return {int(index): text for index, text in answer.items()}

    def _ask(self, wait_secs: float, *question):
        # One connection per question, so that a signal during one leaves nothing for the next.
        try:
            with (
                socket.create_connection(self._address, self._timeout_secs) as connection,
                connection.makefile("rw") as lines,
            ):
                connection.settimeout(wait_secs + self._timeout_secs)
                lines.write(json.dumps([self._key, *question]) + "\n")
                lines.flush()
                return json.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise Unreachable(str(error)) from error


def serve(notes: Notes, key: str) -> int:
    """Serves the notes in threads and returns the port; requests without the key get no answer."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", 0))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # too many open files: the client will retry
                time.sleep(1.0)
                continue
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket):
        with (
            contextlib.suppress(OSError, ValueError, TypeError),  # a stranger, or gone
            connection,
            connection.makefile("rw") as lines,
        ):
            connection.settimeout(ASK_SECONDS)
            stated, method, *arguments = json.loads(lines.readline())
            if secrets.compare_digest(stated, key):
                lines.write(json.dumps(getattr(notes, method)(*arguments)) + "\n")

    threading.Thread(target=accept, name="notes", daemon=True).start()
    return listener.getsockname()[1]


def connect(hosts: list[str], timeout_secs: float) -> Notes:
    """Connects to the notes of a run, in every process right after `jax.distributed.initialize`.

    Args:
      hosts: names or addresses at which process 0 may be reachable, besides those it knows.
      timeout_secs: seconds of silence after which process 0 counts as gone.

    Raises:
      Unreachable: the machine of process 0 accepts no connection from this one.
    """
    notes, greeting = Notes(), ""
    if jax.process_index() == 0:
        key = secrets.token_hex(16)
        greeting = json.dumps([[*hosts, *_own_hosts()], serve(notes, key), key])
    row = np.frombuffer(greeting.encode().ljust(GREETING_BYTES), np.uint8)
    hosts, port, key = json.loads(multihost_utils.broadcast_one_to_all(row).tobytes())
    if jax.process_index() == 0:
        return notes
    for host in dict.fromkeys(hosts):
        remote = RemoteNotes((host, port), key, timeout_secs)
        with contextlib.suppress(Unreachable):
            remote.read("")
            return remote
    raise Unreachable(f"process 0 takes no connection at port {port} of {', '.join(hosts)}")


def _own_hosts() -> list[str]:
    """Returns addresses of this machine, the most likely first."""
    found = [socket.gethostname(), "127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing; selects the network interface
        found.insert(0, probe.getsockname()[0])
    return found
