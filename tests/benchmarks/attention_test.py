"""The benchmark of the attention compares like with like, on sequences of a few tokens."""

import itertools
import types

from benchmarks import attention


def test_each_length_is_a_group_of_all_forms_on_the_same_tokens(monkeypatch):
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(attention, "time", clock)
    result = attention.measure((4, 8), num_tokens=16, num_heads=1, repeats=2)
    assert [(row.group, row.name) for row in result.rows] == [
        (f"length {length}", name) for length in (4, 8) for name in attention.CONTESTANTS
    ]
    # Every call lasts one tick of this clock.
    assert {row.median for row in result.rows} == {16}
    assert all(row.more[attention.MEMORY] > 0 for row in result.rows)
