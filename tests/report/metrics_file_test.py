import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.report.metrics_file import read_metrics


@pytest.fixture
def metrics_of(tmp_path):
    def read(content):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_metrics(path)

    return read


def test_training_and_evaluation_become_separate_series(metrics_of):
    series, notes = metrics_of(
        '{"step": 10, "train/loss": 9.5, "host": "a"}\n'
        '{"step": 10, "eval/mlm_loss": 9.0}\n'
        '{"step": 20, "train/loss": 8.5}\n'
    )
    assert series.keys() == {"train/loss", "eval/mlm_loss"}
    assert series["train/loss"].steps.tolist() == [10, 20]
    assert series["train/loss"].values.tolist() == [9.5, 8.5]
    assert series["eval/mlm_loss"].steps.tolist() == [10]
    assert notes == []


@settings(max_examples=50)
@given(
    written=st.lists(st.tuples(st.integers(0, 20), st.floats(-1e6, 1e6)), min_size=1, max_size=40)
)
def test_of_steps_written_twice_the_last_wins_and_steps_ascend(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "train/loss": v}) + "\n" for s, v in written))
    series, _ = read_metrics(path)
    assert dict(zip(*map(np.ndarray.tolist, series["train/loss"]))) == dict(written)
    assert series["train/loss"].steps.tolist() == sorted(dict(written))


@pytest.mark.parametrize("tail", ['{"step": 20, "train/lo', '{"step": 20, "train/loss": 8', "\0\0"])
def test_half_written_last_line_is_left_out_with_a_word(metrics_of, tail):
    series, notes = metrics_of('{"step": 10, "train/loss": 9.5}\n' + tail)
    assert series["train/loss"].steps.tolist() == [10]
    assert notes == ["metrics.jsonl: the last line is half-written (a killed run) and was left out"]


def test_garbled_line_is_left_out_by_number(metrics_of):
    series, notes = metrics_of(
        '{"step": 10, "train/loss": 9.5}\n'
        '{"step": 20, "tra{"step": 20, "train/loss": 8.5}\n'
        '{"step": 30, "train/loss": 7.5}\n'
    )
    assert series["train/loss"].steps.tolist() == [10, 30]
    assert notes == ["metrics.jsonl: 1 of 3 lines cannot be read and were left out (line 2)"]


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "null", '"nan"', '"inf"'])
def test_every_way_to_write_a_non_finite_value_is_understood(metrics_of, written):
    series, _ = metrics_of(f'{{"step": 10, "train/loss": {written}}}\n')
    assert series["train/loss"].values.shape == (1,)
    assert not np.isfinite(series["train/loss"].values[0])
