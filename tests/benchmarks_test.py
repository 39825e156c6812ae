"""The benchmarks on a tiny model: that they measure what they say, not how long it takes."""

import itertools
import json
import pydoc_data.topics
import types

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import train_step
from sibert_jax.train.loop import Loop
from sibert_jax.train.step import TrainState


@pytest.fixture(autouse=True)
def _standard_promotion():
    """optax.lamb and optax.adamw mix integers and floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def tiny(tmp_path):
    """Makes runs of 5 steps of a model that compiles in seconds."""
    topics = sorted(pydoc_data.topics.topics.values())[:40]
    text = tmp_path / "topics.txt"
    text.write_text("\n\n".join(" ".join(topic.split()) for topic in topics))

    def make(arch):
        config = train_step.model_config(arch)
        config.data.source, config.data.path = "text", str(text)
        config.data.valid_fraction = 0.1
        config.data.cache_dir = str(tmp_path / "cache")
        config.data.seq_len = config.model.max_len = 32
        config.model.vocab_size = 512
        config.model.width, config.model.ffn_width = 16, 32
        config.train.global_batch_size = 8
        config.train.num_steps, config.train.log_every_steps = 5, 2
        config.optim.warmup_steps = config.optim.head.warmup_steps = 0
        config.checkpoint.every_steps = 3
        return config

    return make


@pytest.fixture
def one_device():
    return jax.devices()[:1]


@pytest.mark.slow
def test_the_timed_loop_logs_saves_and_ends_where_the_bare_steps_end(tiny, one_device, monkeypatch):
    ends, steps_saved, steps_logged = [], [], []
    block, save, write = jax.block_until_ready, Loop.save, Loop.write

    def noted_block(tree):
        if isinstance(tree, TrainState) and int(tree.step) == 5:
            ends.append(jax.device_get(tree))
        return block(tree)

    def noted_save(loop, step, *args):
        steps_saved.append(step)
        save(loop, step, *args)

    def noted_write(loop, step, row):
        steps_logged.append(step)
        write(loop, step, row)

    monkeypatch.setattr(jax, "block_until_ready", noted_block)
    monkeypatch.setattr(Loop, "save", noted_save)
    monkeypatch.setattr(Loop, "write", noted_write)
    rows = train_step.measure_loop(tiny("sibert"), repeats=2, devices=one_device)
    assert [row.name for row in rows] == [train_step.BARE, train_step.LOOP]
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
    rows = train_step.measure_models(configs, num_steps=3, repeats=2, devices=one_device)
    assert [row.name for row in rows] == ["bert", "sibert"]
    # Every repeat lasts one tick of this clock.
    assert {row.tokens_per_second for row in rows} == {3 * 8 * 32}


def test_ratios_are_taken_within_each_repeat():
    bare, loop = train_step.rows({"bare": [100, 10, 40], "loop": [90, 8, 40]}, "bare")
    assert bare[1:] == (40, 10, 100, 1, 1, 1)
    assert loop[1:] == (40, 8, 90, 0.9, 0.8, 1)


def test_every_second_repeat_runs_backwards():
    order = []
    timed = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert train_step._in_turn(timed, 3) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert order == list("abbaab")


def test_the_command_prints_a_table_and_writes_the_same_figures(tmp_path, capsys, monkeypatch):
    rows = train_step.rows({"bare": [10.0, 20.0], "loop": [9.0, 19.0]}, "bare")
    benchmark = command.BENCHMARKS["loop"]._replace(measure=lambda: rows)
    monkeypatch.setitem(command.BENCHMARKS, "loop", benchmark)
    command.main(["loop", f"--out={tmp_path / 'new'}"])
    header, *_, last = capsys.readouterr().out.strip().splitlines()
    assert "jax" in header
    assert "load_average" in header
    assert last == "| loop | 14 (9–19) | 0.925 (0.900–0.950) |"
    written = json.loads((tmp_path / "new/loop.json").read_text())
    assert [tuple(row.values()) for row in written["rows"]] == [tuple(row) for row in rows]


def test_without_a_name_every_benchmark_is_run(tmp_path, capsys, monkeypatch):
    for number, (name, benchmark) in enumerate(command.BENCHMARKS.items()):
        fake = benchmark._replace(measure=list, table=lambda _, number=number: f"table {number}")
        monkeypatch.setitem(command.BENCHMARKS, name, fake)
    command.main([f"--out={tmp_path}"])
    printed = capsys.readouterr().out
    for number, name in enumerate(command.BENCHMARKS):
        assert f"table {number}" in printed
        assert (tmp_path / f"{name}.json").exists()


def test_an_unknown_name_is_told_with_the_names_there_are(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["lop"])
    said = capsys.readouterr().err
    assert "'lop'" in said
    assert all(name in said for name in command.BENCHMARKS)
