"""The step that processes agree to stop after."""

import time

import pytest

from sibert_jax.runtime import stop_step
from sibert_jax.runtime.processes import SINGLE_PROCESS, ProcessGroup
from sibert_jax.runtime.signals import StopRequest
from sibert_jax.runtime.stop_step import StopStep


class Notes:
    """What `coordination` offers."""

    def __init__(self):
        self.notes = {}

    def put(self, key, value):
        self.notes.setdefault(key, value)

    def get(self, key):
        return self.notes.get(key)

    def entries(self, folder):
        return {int(k.rsplit("/")[-1]): v for k, v in self.notes.items() if k.startswith(folder)}


class OneOfTwo(ProcessGroup):
    count = 2

    def __init__(self, index):
        self.index = index


@pytest.fixture
def pair(monkeypatch):
    """The two processes' requests and stop steps."""
    monkeypatch.setattr(stop_step, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stop_step, "coordination", Notes())
    requests = StopRequest(), StopRequest()
    with (
        StopStep(requests[0], OneOfTwo(0)) as first,
        StopStep(requests[1], OneOfTwo(1)) as second,
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
