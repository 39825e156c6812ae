"""Scores of held-out sets and of their classes, and the confusion matrices."""

import json

import numpy as np
import pytest

from sibert_jax.report import UnreadableRun, read_run
from sibert_jax.report.held_out import draw_confusion, read_held_out, tables
from sibert_jax.report.write import write

COUNTS = [[8, 2], [1, 9]]
CLASSES = {
    "ham": {"precision": 8 / 9, "recall": 0.8, "f1": 16 / 19, "examples": 10},
    "spam|$": {"precision": 9 / 11, "recall": 0.9, "f1": 18 / 21, "examples": 10},
}
DEV = {"accuracy": 0.85, "examples_per_second": 3.0, "classes": CLASSES, "confusion": COUNTS}


@pytest.fixture
def finished(write_run, short):
    def make(name, held_out):
        directory = write_run(name, short)
        (directory / "results.json").write_text(json.dumps({"held_out": held_out}))
        return read_run(directory)

    return make


def test_every_set_has_a_row_and_every_class_a_table(finished, write_run, short):
    runs = [finished("a", {"dev": DEV, "test": {"examples_per_second": 2.0}}),
            finished("b", {"dev": {"f1": 0.5}}), read_run(write_run("c", short))]  # fmt: skip
    page = tables(read_held_out(runs)).splitlines()
    assert page[2] == "| run | set | accuracy | f1 |"
    assert page[4:6] == ["| a | dev | 0.85 | – |", "| b | dev | – | 0.5 |"]
    assert "| ham | 0.8889 | 0.8 | 0.8421 | 10 |" in page
    assert r"| spam\|$ | 0.8182 | 0.9 | 0.8571 | 10 |" in page
    assert "| *mean; total* | 0.8535 | 0.85 | 0.8496 | 20 |" in page


def test_the_matrix_has_counts_and_shares_of_the_true_class(finished):
    figure = draw_confusion(read_held_out([finished("a", {"dev": DEV})]))
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["8", "2", "1", "9"]
    np.testing.assert_allclose(axis.images[0].get_array(), [[80, 20], [10, 90]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ham", r"spam|\$"]
    many = {str(i): CLASSES["ham"] for i in range(60)}
    wide = {"accuracy": 0.5, "classes": many, "confusion": np.eye(60, dtype=int).tolist()}
    runs = [finished(f"r{i}", {"dev": wide}) for i in range(7)]
    axes = draw_confusion(read_held_out(runs)).axes
    assert sum(bool(axis.images) for axis in axes) == 6
    assert not axes[0].texts
    assert draw_confusion([]) is None


def test_a_report_of_a_classifier_has_a_second_picture(finished, tmp_path):
    run = finished("a", {"dev": DEV})
    names = [path.name for path in write([str(run.path)], tmp_path / "out")]
    assert names == ["report.png", "report.md", "confusion.png"]
    assert "(confusion.png)" in (tmp_path / "out/report.md").read_text()
    (run.path / "results.json").write_text("[]")
    with pytest.raises(UnreadableRun, match=r"results.json holds no results"):
        write([str(run.path)], tmp_path / "out")
