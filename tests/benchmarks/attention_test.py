"""The benchmark of the attention compares like with like, on sequences of a few tokens."""

import itertools
import types

from benchmarks import attention


def test_each_length_is_a_group_of_all_forms_on_the_same_tokens(monkeypatch):
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(attention, "time", clock)
    result = attention.measure((4, 8), num_tokens=16, repeats=2)
    assert [(row.group, row.name) for row in result.rows] == [
        (f"length {length}", name) for length in (4, 8) for name in attention.contestants("cpu")
    ]
    # Every call lasts one tick of this clock.
    assert {row.median for row in result.rows} == {16}
    assert all(row.more[attention.MEMORY] > 0 for row in result.rows)


def test_on_an_accelerator_the_kernels_compete_too_and_on_gpus_those_of_cudnn():
    on = {platform: set(attention.contestants(platform)) for platform in ("cpu", "tpu", "gpu")}
    assert on["tpu"] - on["cpu"] == {attention.KERNELS}
    assert on["gpu"] - on["tpu"] == {attention.CUDNN}
