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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (([7], [5]), ([8], [6, 7, 8])),  # after the step that neither has begun
        (([], []), ([101], [101])),  # before the first step of a resumed run
        (([101], []), ([102], [101, 102])),  # only one has begun a step
    ],
)
def test_both_stop_after_the_same_step(pair, before, after):
    requests, *processes = pair
    for process, steps in zip(processes, before):
        assert not any(process.reached(step) for step in steps)
    requests[1].requested = "SIGTERM"
    while requests[0].requested != "SIGTERM":
        time.sleep(0.01)
    for process, steps in zip(processes, after):
        assert [process.reached(step) for step in steps] == [step == steps[-1] for step in steps]


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
