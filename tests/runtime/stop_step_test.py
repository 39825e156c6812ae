"""The step that processes agree to stop after."""

import time

import pytest

from sibert_jax.runtime import stop_step
from sibert_jax.runtime.coordination import Notes
from sibert_jax.runtime.processes import SINGLE_PROCESS, ProcessGroup
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.stop_step import StopStep


class OneOfTwo(ProcessGroup):
    count = 2

    def __init__(self, index, notes):
        self.index, self.notes = index, notes


@pytest.fixture
def pair(monkeypatch):
    """The two processes' requests and stop steps."""
    monkeypatch.setattr(stop_step, "POLL_SECONDS", 0.01)
    requests, notes = (StopRequest(), StopRequest()), Notes()
    with (
        StopStep(requests[0], OneOfTwo(0, notes)) as first,
        StopStep(requests[1], OneOfTwo(1, notes)) as second,
    ):
        yield requests, first, second


def signal_one(requests):
    requests[1].requested = "SIGTERM"
    while requests[0].requested != "SIGTERM":
        time.sleep(0.01)


def test_both_stop_after_the_step_that_none_has_asked_about(pair):
    requests, first, second = pair
    assert not first.reached(7)
    assert not second.reached(5)
    signal_one(requests)
    assert first.reached(8)
    assert [second.reached(step) for step in (6, 7, 8)] == [False, False, True]


def test_a_signal_before_the_first_step_of_a_resumed_run_stops_after_that_step(pair):
    requests, first, second = pair
    signal_one(requests)
    assert first.reached(101)
    assert second.reached(101)


def test_a_signal_that_only_one_has_begun_a_step_before_stops_after_the_next(pair):
    requests, first, second = pair
    assert not first.reached(101)
    signal_one(requests)
    assert [second.reached(101), second.reached(102)] == [False, True]
    assert first.reached(102)


def test_without_a_signal_nothing_stops(pair):
    _, first, second = pair
    assert not first.reached(1)
    assert not second.reached(10**6)


def test_a_process_alone_stops_at_once():
    request = StopRequest()
    with StopStep(request, SINGLE_PROCESS) as stop:
        assert not stop.reached(3)
        request.requested = "SIGINT"
        assert stop.reached(4)
