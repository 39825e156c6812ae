"""Speed of the steps that a row covers, and seconds by phase over all starts of a workdir."""

import threading
import types

import numpy as np
import pytest

from sibert_jax.runtime import goodput
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.peak_flops import peak_flops
from sibert_jax.runtime.speed import Speed, speed_row
from sibert_jax.runtime.watchdog import Watchdog


class Result:
    """An array that a device computes."""

    def __init__(self):
        self._computed = threading.Event()

    def block_until_ready(self):
        assert self._computed.wait(60)
        return self

    def is_computed(self):
        self._computed.set()


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


@pytest.mark.parametrize("steps_ahead", [0, 1, 3])
def test_how_far_the_host_runs_ahead_does_not_matter(clock, steps_ahead):
    speed, results, stretches, seconds = Speed(), [], [], []
    speed.restart(0)
    log_steps = (4, 5, 8, 11)

    def device_does(step):
        clock.now += 2.0
        results[step - 1].is_computed()
        if step in log_steps:
            seconds.append(speed.seconds(stretches[len(seconds)]))

    for step in range(1, 12):
        results.append(Result())
        speed.add(8, 1024, 3e12)
        if step in log_steps:
            stretches.append(speed.end(step, results[-1]))
        if step > steps_ahead:
            device_does(step - steps_ahead)
    for step in range(12 - steps_ahead, 12):
        device_does(step)
    assert [stretch.num_steps for stretch in stretches] == [4, 1, 3, 3]
    assert seconds == [8.0, 2.0, 6.0, 6.0]
    rows = [speed_row(stretch, secs, None) for stretch, secs in zip(stretches, seconds)]
    assert rows == [{"perf/tokens_per_second": 512.0, "perf/examples_per_second": 4.0}] * 4


def test_pauses_are_left_out_of_the_stretch_they_are_in(clock):
    speed = Speed()
    clock.now = 100.0  # writers are opened, the first batch is awaited
    speed.restart(6)
    stretches = []
    for step in (7, 8, 9):
        clock.now += 1.0
        speed.add(1, 10, 0.0)
        stretches.append(speed.end(step, np.zeros(())))
        stretches[-1].end.result()
        if step == 7:  # an evaluation
            clock.now += 50.0
            speed.pause(clock.now - 50.0, clock.now)
    assert [speed.seconds(stretch) for stretch in stretches] == [1.0, 1.0, 1.0]
    clock.now = 1000.0  # back at a checkpoint
    speed.restart(7)
    clock.now += 3.0
    assert speed.seconds(speed.end(8, np.zeros(()))) == 3.0


def test_a_pause_while_the_device_works_counts_from_when_it_is_idle(clock):
    speed, result = Speed(), Result()
    first = speed.end(1, result)
    clock.now = 2.0  # a program is compiled meanwhile, from 0 to 9
    result.is_computed()
    assert speed.seconds(first) == 2.0
    clock.now = 9.0
    speed.pause(0.0, 9.0)
    clock.now = 12.0
    assert speed.seconds(speed.end(2, np.zeros(()))) == 3.0


def test_a_step_that_fails_fails_where_its_speed_is_asked_for():
    class Failed(Result):
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    speed = Speed()
    with pytest.raises(RuntimeError, match="out of memory"):
        speed.seconds(speed.end(1, Failed()))


def test_utilisation_is_the_models_flops_over_the_peak_of_all_devices(clock):
    speed = Speed()
    speed.add(examples=8, tokens=1024, flops=3e12)
    clock.now = 2.0
    stretch = speed.end(1, np.zeros(()))
    seconds = speed.seconds(stretch)
    plain = {"perf/examples_per_second": 4, "perf/tokens_per_second": 512}
    assert speed_row(stretch, seconds, peak_flops("cpu", "float32")) == plain  # not known
    row = speed_row(stretch, seconds, 2 * peak_flops("TPU v5 lite", "bfloat16"))
    assert row == plain | {"perf/mfu": pytest.approx(1.5e12 / (2 * 197e12))}


def test_goodput_counts_inner_phases_once_and_adds_up_over_starts(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(goodput, "time", clock)
    path = tmp_path / "goodput.json"
    for start in (1, 2):
        sums = Goodput(path, Watchdog(0), clock.now - 5.0)
        with sums.phase("step"):
            clock.now += 1.0
            for _ in sums.each("input", range(3)):
                sums.steps += 1
                clock.now += 2.0
            with sums.phase("evaluation"):
                clock.now += 3.0
        sums.write()
        row = sums.row(step=3)
        assert row["goodput/starts"] == start
        assert row["goodput/start"] == 5.0 * start
        assert row["goodput/step"] == 7.0 * start
        assert row["goodput/evaluation"] == 3.0 * start
        assert row["goodput/repeated_steps"] == 3 * (start - 1)
        assert row["goodput/share"] == pytest.approx(7.0 / 15.0 / start)
        assert f"{start} start" in sums.line(3)
        clock.now += 50.0  # between two starts nothing runs
    path.write_text("{}")
    assert Goodput(path, Watchdog(0), clock.now).starts == 1
