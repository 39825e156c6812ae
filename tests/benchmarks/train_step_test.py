"""Every benchmark of a step measures what it says, on tiny models and a made-up clock."""

import itertools
import types

import pytest

from benchmarks import attention, finetuning, input_pipeline, loop, train_step

TINY = {
    "model.width": 16,
    "model.ffn_width": 32,
    "model.depth": 1,
    "data.num_seq_lens": 1,
    "train.global_batch_size": 8,
}


@pytest.fixture
def one_tick(monkeypatch):
    """Every measurement lasts one tick of the clock."""
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    for module in (attention, finetuning, train_step):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.slow
def test_loop_is_timed_beside_the_bare_step(tiny, one_device):
    result = loop.measure(tiny("sibert"), repeats=1, devices=one_device)
    assert [row.name for row in result.rows] == [loop.BARE, loop.LOOP]
    assert all(row.median > 0 for row in result.rows)


@pytest.mark.slow
@pytest.mark.usefixtures("one_tick")
def test_models_are_measured_on_the_tokens_of_their_own_runs(tiny, one_device):
    configs = {"bert": tiny("bert"), "sibert": tiny("sibert")}
    rows = train_step.compare(configs, num_steps=3, repeats=2, costs=True, devices=one_device)
    assert [row.name for row in rows] == ["bert", "sibert"]
    assert {row.median for row in rows} == {3 * 8 * 32}
    assert all(row.more["temporary MB"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("one_tick")
@pytest.mark.parametrize("task", ["sst2", "mnli", "squad"])
def test_fine_tuning_is_measured_in_examples_of_the_task(task, one_device):
    result = finetuning.measure((task,), num_batches=2, repeats=1, changes=TINY, devices=one_device)
    assert [row.group for row in result.rows] == [
        f"{task}, {what}" for what in ("training", "prediction") for _ in finetuning.ARCHS
    ]
    # 64 examples, or windows, are in the files.
    assert [row.median for row in result.rows] == [16, 16, 64, 64]
    assert all(0 < row.more["padding"] < 1 for row in result.rows)


@pytest.mark.slow
def test_pipeline_is_measured_against_the_step(tiny, one_device):
    result = input_pipeline.measure(
        {"tiny": tiny("sibert")}, num_steps=2, repeats=1, devices=one_device
    )
    assert [row.name for row in result.rows] == [input_pipeline.STEPS, input_pipeline.MADE]
    assert result.rows[1].ratio > 0


@pytest.mark.usefixtures("one_tick")
def test_attention_is_measured_on_the_same_tokens():
    result = attention.measure((4,), num_tokens=16, repeats=2)
    assert [(row.group, row.name) for row in result.rows] == [
        ("length 4", name) for name in attention.contestants("cpu")
    ]
    assert {row.median for row in result.rows} == {16}
    assert all(row.more[attention.MEMORY] > 0 for row in result.rows)
    on = {platform: set(attention.contestants(platform)) for platform in ("cpu", "tpu", "gpu")}
    assert on["tpu"] - on["cpu"] == {attention.KERNELS, attention.FLASH}
    assert on["gpu"] - on["cpu"] == {attention.KERNELS, attention.CUDNN}
