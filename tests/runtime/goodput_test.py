"""Seconds by phase, over all starts of a workdir."""

import pytest

from sibert_jax.runtime import goodput
from sibert_jax.runtime.goodput import Goodput
from sibert_jax.runtime.watchdog import Watchdog


class FakeTime:
    now = 100.0

    def monotonic(self):
        return self.now


def test_goodput_counts_inner_phases_once_and_adds_up_over_starts(tmp_path, monkeypatch):
    clock = FakeTime()
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
