"""Notes between processes, over a connection."""

import socket
import threading

import pytest

from sibert_jax.runtime.coordination import Notes, RemoteNotes, Unreachable, serve


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def port(notes):
    return serve(notes, "key")


def remote(port, key="key", timeout_secs=10.0):
    return RemoteNotes(("127.0.0.1", port), key, timeout_secs)


def test_all_processes_read_what_each_has_written_last(notes, port):
    remote(port).write("alive", 1, "1")
    notes.write("alive", 0, "5")
    remote(port).write("alive", 1, "2")
    for reader in (notes, remote(port)):
        assert list(reader.read("alive").items()) == [(1, "2"), (0, "5")]
        assert reader.read("failed") == {}


def test_a_reader_waits_for_notes_no_longer_than_asked(notes, port):
    assert remote(port).read("here", at_least=1, wait_secs=0.1) == {}
    threading.Timer(0.1, notes.write, ("here", 0, "yes")).start()
    assert remote(port).read("here", at_least=1, wait_secs=60.0) == {0: "yes"}


def test_without_the_key_there_is_no_answer(notes, port):
    with pytest.raises(Unreachable):
        remote(port, key="another").write("failed", 1, "forged")
    assert notes.read("failed") == {}
    assert remote(port).read("failed") == {}


def test_a_process_that_does_not_answer_is_unreachable():
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(Unreachable, match="timed out"):
        remote(silent.getsockname()[1], timeout_secs=0.1).read("here")
