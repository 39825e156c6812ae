"""The speed of a row is that of the steps it covers, in the loop too."""

import json
import time

import jax
import pytest

from sibert_jax.train.trainer import Programs


@pytest.mark.slow
@pytest.mark.parametrize("log_every_steps", [4, 1])
def test_no_row_is_faster_than_its_steps(train_one, config, tmp_path, monkeypatch, log_every_steps):
    """Where the device computes while the host waits, as CPUs do, a row is written late."""
    original, least = Programs.__call__, 0.05

    def step(programs, tree, batch):
        done = jax.block_until_ready(original(programs, tree, batch))
        time.sleep(least)
        return done

    monkeypatch.setattr(Programs, "__call__", step)
    config.train.num_steps = 9
    config.train.log_every_steps = log_every_steps
    train_one(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    before = 0
    for row in rows:
        if "perf/tokens_per_second" not in row:
            continue
        tokens = (row["step"] - before) * 8 * 32
        assert tokens / row["perf/tokens_per_second"] > least * (row["step"] - before)
        before = row["step"]
    assert before == 9
