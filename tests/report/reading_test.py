"""A run's folder: its rows as series, notes on what is damaged, and what is refused."""

import json
import math
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.report import UnreadableRun, draw, read_run, table
from sibert_jax.report.metrics_file import read_metrics
from sibert_jax.report.run_folder import Run, distinct_names

ROW = {
    "step": 10,
    "train/loss": 9.5,
    "optim/learning_rate": 0.02,
    "optim/weight_decay": 0.25,
    "optim/equilibrium_norm": 7.0,
    "optim/param_norm": 8.0,
}
FIRST = '{"step": 10, "train/loss": 9.5}\n'


@pytest.fixture
def metrics_of(tmp_path):
    def read(content):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_metrics(path)

    return read


def test_training_and_evaluation_become_separate_series(metrics_of):
    series, notes = metrics_of(
        '{"step": 10, "train/loss": 9.5, "host": "a"}\n{"step": 10, "eval/mlm_loss": 9.0}\n'
        '{"step": 20, "train/loss": 8.5}\n'
    )
    found = {name: [x.tolist() for x in pair] for name, pair in series.items()}
    assert found == {"train/loss": [[10, 20], [9.5, 8.5]], "eval/mlm_loss": [[10], [9.0]]}
    assert notes == []


@settings(max_examples=30)
@given(
    written=st.lists(st.tuples(st.integers(0, 20), st.floats(-1e6, 1e6)), min_size=1, max_size=40)
)
def test_of_steps_written_twice_the_last_wins_and_steps_ascend(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "train/loss": v}) + "\n" for s, v in written))
    series, _ = read_metrics(path)
    assert dict(zip(*map(np.ndarray.tolist, series["train/loss"]))) == dict(written)
    assert series["train/loss"].steps.tolist() == sorted(dict(written))


@pytest.mark.parametrize(
    ("tail", "note"),
    [
        (
            '{"step": 20, "train/lo',
            "the last line is incomplete (the run was killed) and was skipped",
        ),
        ("\0\0", "the last line is incomplete (the run was killed) and was skipped"),
        (
            f'{{"step": 20, "tra{FIRST}{FIRST}',
            "1 of 3 lines cannot be read and were skipped",
        ),
    ],
)
def test_damaged_lines_are_left_out_with_a_word(metrics_of, tail, note):
    series, notes = metrics_of(FIRST + tail)
    assert series["train/loss"].steps.tolist() == [10]
    assert notes[0].startswith(f"metrics.jsonl: {note}")


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "null", '"nan"', '"inf"'])
def test_every_way_to_write_a_non_finite_value_is_understood(metrics_of, written):
    series, _ = metrics_of(f'{{"step": 10, "train/loss": {written}}}\n')
    assert series["train/loss"].values.shape == (1,)
    assert not np.isfinite(series["train/loss"].values[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no metrics yet"),
        ('{"step": 10, "host": "a"}\n', "holds no metrics yet"),
        ("step,loss\n10,9.5\n", "no line is a row of metrics"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "no line is a row of metrics"),
        ("[1, 2]\n", "no line is a row of metrics"),
        ('{"train/loss": 9.5}\n', "line 1: `step` is None"),
        ('{"step": 1.5, "train/loss": 9.5}\n', "line 1: `step` is 1.5"),
        ('{"step": -1, "train/loss": 9.5}\n', "line 1: `step` is -1"),
        ('{"step": true, "train/loss": 9.5}\n', "line 1: `step` is True"),
        ('{"step": 10, "train/loss": [9.5]}\n', r"line 1: train/loss is \[9.5\]"),
        ('{"step": 10, "train/loss": "low"}\n', "line 1: train/loss is 'low'"),
    ],
)
def test_file_without_metrics_is_refused(metrics_of, content, words):
    with pytest.raises(UnreadableRun, match=f"metrics.jsonl.*{words}") as error:
        metrics_of(content)
    assert "\n" not in str(error.value)


def written(name, content):
    return lambda d: (d / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "config.json").unlink(), "a has no config.json; expected the workdir"),
        (lambda d: (d / "metrics.jsonl").unlink(), "a has no metrics.jsonl; expected the workdir"),
        (written("config.json", b'{"a": '), "config.json.*is not JSON"),
        (written("config.json", b"[]"), "config.json.*list"),
        (written("run.json", b"\xff"), "run.json.*is not JSON"),
        (written("run.json", b"[]"), "run.json.*list"),
        (
            written("metrics.jsonl", b'{"step": 1, "eval/bleu": 3.0}'),
            r"neither .*found: eval",
        ),
    ],
)
def test_damaged_folder_is_refused(write_run, spoil, words):
    directory = write_run("a", [ROW])
    spoil(directory)
    with pytest.raises(UnreadableRun, match=words):
        read_run(directory)


def test_path_that_is_no_folder_is_refused(tmp_path, write_run):
    with pytest.raises(UnreadableRun, match=r"no such directory: .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UnreadableRun, match=r"config.json is a file; expected the workdir"):
        read_run(write_run("a", [ROW]) / "config.json")


@pytest.mark.parametrize("show", [draw, table])
def test_runs_of_different_tasks_are_not_compared(write_run, config, show):
    other = write_run("b", [ROW], config(task__name="classification"))
    runs = [read_run(write_run("a", [ROW])), read_run(other)]
    with pytest.raises(UnreadableRun, match=r"a.config.json: pretraining; .*b.config.json: class"):
        show(runs)


@pytest.mark.parametrize("count", [0, 9])
def test_picture_holds_one_to_eight_runs(write_run, count):
    runs = [read_run(write_run(f"run{i}", [ROW])) for i in range(count)]
    with pytest.raises(UnreadableRun, match=f"{count} runs were given, but a figure shows 1 to 8"):
        draw(runs)


def test_losses_that_are_not_finite_are_noted_and_run_json_may_be_missing(write_run, monkeypatch):
    rows = [
        {**ROW, "optim/clip_threshold": math.inf},
        {**ROW, "step": 20, "train/loss": math.nan},
        {**ROW, "step": 30, "train/loss": math.inf},
    ]
    monkeypatch.chdir(write_run("here", rows))
    pathlib.Path("run.json").unlink()
    run = read_run(".")
    assert (run.name, run.info) == ("here", {})
    assert run.notes == ("train/loss is not finite in 2 of 3 rows, first at step 20",)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/r/a/run", "/r/b/run", "/r/c"], ["a/run", "b/run", "c"]),
        (["/x/s/run", "/y/s/run", "/y/t/run"], ["x/s/run", "y/s/run", "t/run"]),
        (["/run", "/a/run"], ["//run", "a/run"]),
    ],
)
def test_names_take_as_many_parents_as_it_takes(paths, names):
    assert distinct_names([Run(pathlib.Path(path), {}, {}, {}) for path in paths]) == names
