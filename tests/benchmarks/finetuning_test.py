"""Fine-tuning is measured on batches of its own examples."""

import itertools
import types

import pytest

from benchmarks import finetuning

TINY = {
    "model.width": 16,
    "model.ffn_width": 32,
    "model.depth": 1,
    "data.num_seq_lens": 1,
    "train.global_batch_size": 8,
}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sst2", "mnli", "squad"])
def test_training_and_prediction_are_measured_in_examples_of_the_task(
    task, one_device, monkeypatch
):
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(finetuning, "time", clock)
    result = finetuning.measure((task,), num_batches=2, repeats=1, changes=TINY, devices=one_device)
    assert [row.group for row in result.rows] == [
        f"{task}, {what}" for what in ("training", "prediction") for _ in finetuning.ARCHS
    ]
    # Every measurement lasts one tick of this clock; 64 examples, or windows, are in the files.
    assert [row.median for row in result.rows] == [16, 16, 64, 64]
    assert all(0 < row.more["padding"] < 1 for row in result.rows)
