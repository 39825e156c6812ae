"""Unreadable runs are refused in one sentence that names the file; nothing is written."""

import pytest

from sibert_jax.report import UnreadableRun, draw, read_run, table
from sibert_jax.report.__main__ import main
from sibert_jax.report.metrics_file import read_metrics

ROW = {"step": 10, "train/loss": 9.0}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no metrics yet"),
        ("\n\n", "holds no metrics yet"),
        ('{"step": 10, "host": "a"}\n', "holds no metrics yet"),
        ("step,loss\n10,9.5\n", "no line of it is a row of metrics"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "no line of it is a row of metrics"),
        ("[1, 2]\n", "no line of it is a row of metrics"),
        ('{"train/loss": 9.5}\n', "line 1: `step` is None"),
        ('{"step": 1.5, "train/loss": 9.5}\n', "line 1: `step` is 1.5"),
        ('{"step": -1, "train/loss": 9.5}\n', "line 1: `step` is -1"),
        ('{"step": true, "train/loss": 9.5}\n', "line 1: `step` is True"),
        ('{"step": 10, "train/loss": [9.5]}\n', r"line 1: train/loss is \[9.5\]"),
        ('{"step": 10, "train/loss": "low"}\n', "line 1: train/loss is 'low'"),
    ],
)
def test_file_without_metrics_is_refused(tmp_path, content, words):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnreadableRun, match=f"metrics.jsonl.*{words}") as error:
        read_metrics(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda d: (d / "config.json").unlink(),
            "a has no config.json; wanted the folder",
        ),
        (lambda d: (d / "metrics.jsonl").unlink(), "a has no metrics.jsonl; wanted the folder"),
        (lambda d: (d / "config.json").write_bytes(b'{"a": '), "config.json.*is not JSON"),
        (lambda d: (d / "config.json").write_bytes(b"[]"), "config.json.*list"),
        (lambda d: (d / "run.json").write_bytes(b"\xff"), "run.json.*is not JSON"),
        (lambda d: (d / "run.json").write_bytes(b"[]"), "run.json.*list"),
        (
            lambda d: (d / "metrics.jsonl").write_text('{"step": 1, "eval/bleu": 3.0}\n'),
            r"metrics.jsonl holds neither .* \(found: eval/bleu\)",
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
    with pytest.raises(UnreadableRun, match=r"config.json is a file; wanted the folder"):
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
    with pytest.raises(UnreadableRun, match=f"{count} runs were given; a picture holds 1 to 8"):
        draw(runs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("first", "nowhere"), "no such directory: "),
        (("first", "first/../first"), "first was given twice; name each run once"),
        (("first", "--out=file"), "file is a file; name a folder"),
    ],
)
def test_command_ends_with_one_sentence(write_run, tmp_path, monkeypatch, capsys, arguments, words):
    write_run("first", [ROW])
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["--out=report", *arguments])
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "first"]
