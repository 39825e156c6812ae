"""Notes that the processes of a run leave for each other, and barriers, for any thread.

JAX's coordination service has both but no public interface to them, and a collective in a thread
would get between those of the training step. So process 0 keeps the notes, and serves them to the
others on a port of its own, with a key that only they are told.
"""

import contextlib
import json
import secrets
import socket
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache

from sibert_jax.errors import ConfigError

GONE = (OSError, EOFError)  # what a note raises when process 0 cannot be reached any more
ADDRESS_BYTES = 1024
CONNECT_SECONDS = 10


class Notes:
    """The notes themselves, in process 0."""

    def __init__(self):
        self._notes: dict[str, str] = {}
        self._changed = threading.Condition()

    def put(self, key: str, value: str, overwrite: bool = False) -> bool:
        """Leaves a note for all; without `overwrite` the first one stays. Whether this one did."""
        with self._changed:
            if key in self._notes and not overwrite:
                return False
            self._notes[key] = value
            self._changed.notify_all()
            return True

    def get(self, key: str) -> str | None:
        """Reads a note; None if there is none."""
        with self._changed:
            return self._notes.get(key)

    def wait(self, key: str, timeout_secs: float) -> str | None:
        """Reads a note as soon as it is there; None if it is not in time."""
        with self._changed:
            self._changed.wait_for(lambda: key in self._notes, timeout_secs)
            return self._notes.get(key)

    def entries(self, folder: str) -> dict[int, str]:
        """The notes `folder/<index>`, by index."""
        with self._changed:
            return self._entries(folder)

    def _entries(self, folder: str) -> dict[int, str]:
        split = ((*key.rpartition("/"), value) for key, value in self._notes.items())
        return {int(name): value for parent, _, name, value in split if parent == folder}

    def barrier(self, name: str, index: int, count: int, timeout_secs: float) -> list[int]:
        """Waits until all processes are here; returns those that were not in time, [] if all were.

        Args:
          name: each is used once.
          index: of the process that calls.
          count: of processes.
          timeout_secs: how long to wait for the others.
        """
        folder = f"barrier/{name}"
        with self._changed:
            self._notes[f"{folder}/{index}"] = "here"
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._entries(folder)) == count, timeout_secs)
            return sorted(set(range(count)) - self._entries(folder).keys())


class RemoteNotes:
    """The notes of process 0 as the others see them; each method may raise one of GONE."""

    def __init__(self, address: tuple[str, int], key: bytes):
        self._address, self._key = address, key
        self._own = threading.local()  # a connection for each thread, as a call may wait

    def __getattr__(self, name: str):
        def call(*arguments):
            if not hasattr(self._own, "connection"):
                self._own.connection = Client(self._address, authkey=self._key)
            self._own.connection.send((name, arguments))
            return self._own.connection.recv()

        return call


def connect(hosts: list[str]) -> Notes | RemoteNotes:
    """Called by all processes once, right after `jax.distributed.initialize`.

    Args:
      hosts: names or addresses under which process 0 may be reached.

    Raises:
      ConfigError: this process cannot reach process 0 under any of them.
    """
    notes, text = Notes(), ""
    if jax.process_index() == 0:
        key = secrets.token_hex(16)
        listener = Listener(("", 0), backlog=jax.process_count(), authkey=key.encode())
        threading.Thread(target=_serve, args=(listener, notes), daemon=True).start()
        text = json.dumps([[*hosts, *_own_hosts()], listener.address[1], key])
    row = np.frombuffer(text.encode().ljust(ADDRESS_BYTES, b"\0"), np.uint8)
    answer = np.asarray(multihost_utils.broadcast_one_to_all(row)).tobytes().rstrip(b"\0")
    compilation_cache.reset_cache()  # compiled before the directory of the cache was known
    if jax.process_index() == 0:
        return notes
    hosts, port, key = json.loads(answer)
    for host in dict.fromkeys(hosts):
        remote = RemoteNotes((host, port), key.encode())
        with contextlib.suppress(*GONE, AuthenticationError):
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            remote.get("")
            return remote
    raise ConfigError(
        f"process {jax.process_index()} cannot reach process 0 at port {port} of any of "
        f"{', '.join(dict.fromkeys(hosts))}; let the hosts of a run connect to each other."
    )


def _own_hosts() -> list[str]:
    """Addresses of this machine, the likeliest first."""
    found = [socket.gethostname(), "127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the interface to the network
        found.insert(0, probe.getsockname()[0])
    return found


def _serve(listener: Listener, notes: Notes) -> None:
    while True:
        try:
            connection = listener.accept()
        except (*GONE, AuthenticationError):  # someone else's, or closed at once
            continue
        threading.Thread(target=_answer, args=(connection, notes), daemon=True).start()


def _answer(connection: Connection, notes: Notes) -> None:
    with connection, contextlib.suppress(*GONE):
        while True:
            name, arguments = connection.recv()
            connection.send(getattr(notes, name)(*arguments))
