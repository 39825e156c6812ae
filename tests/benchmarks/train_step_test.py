"""The timed steps and the timed loop are the real ones, on a tiny model."""

import itertools
import types

import jax
import numpy as np
import pytest

from benchmarks import loop, train_step
from sibert_jax.train.loop import Loop
from sibert_jax.train.step import TrainState


@pytest.mark.slow
def test_the_timed_loop_logs_saves_and_ends_where_the_bare_steps_end(tiny, one_device, monkeypatch):
    ends, steps_saved, steps_logged = [], [], []
    block, save, write = jax.block_until_ready, Loop.save, Loop.write

    def noted_block(tree):
        if isinstance(tree, TrainState) and int(tree.step) == 5:
            ends.append(jax.device_get(tree))
        return block(tree)

    def noted_save(the_loop, step, *args):
        steps_saved.append(step)
        save(the_loop, step, *args)

    def noted_write(the_loop, step, row):
        steps_logged.append(step)
        write(the_loop, step, row)

    monkeypatch.setattr(jax, "block_until_ready", noted_block)
    monkeypatch.setattr(Loop, "save", noted_save)
    monkeypatch.setattr(Loop, "write", noted_write)
    result = loop.measure(tiny("sibert"), repeats=2, devices=one_device)
    assert [row.name for row in result.rows] == [loop.BARE, loop.LOOP]
    assert steps_saved == [3, 5] * 2
    assert steps_logged == [2, 4, 5] * 2
    assert len(ends) == 4
    for end in ends[1:]:
        jax.tree.map(np.testing.assert_array_equal, ends[0], end)


@pytest.mark.slow
def test_models_are_measured_on_the_tokens_of_their_own_runs(tiny, one_device, monkeypatch):
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(train_step, "time", clock)
    configs = {"bert": tiny("bert"), "sibert": tiny("sibert")}
    rows = train_step.compare(configs, num_steps=3, repeats=2, costs=True, devices=one_device)
    assert [row.name for row in rows] == ["bert", "sibert"]
    # Every repeat lasts one tick of this clock.
    assert {row.median for row in rows} == {3 * 8 * 32}
    assert all(row.more["temporary MB"] > 0 for row in rows)
