"""The picture holds the rows of metrics.jsonl, predictions dashed, and stays readable."""

import io
import math

import matplotlib
import numpy as np
import pytest

from sibert_jax.report import draw, read_run

LOSS, NORM, RATIO, ROTATION, CLIP, LAST = range(6)
PANELS = {
    "train/mlm_loss": (LOSS, 1),
    "eval/mlm_loss": (LOSS, 1),
    "optim/param_norm": (NORM, 1),
    "optim/equilibrium_norm": (NORM, 1),
    "optim/relative_grad_norm": (RATIO, 1),
    "optim/clip_threshold": (RATIO, 1),
    "optim/rotation": (ROTATION, 1),
    "optim/predicted_rotation": (ROTATION, 1),
    "optim/clipped": (CLIP, 100),
    "model/dead_attention_rows": (LAST, 100),
}
PREDICTED = {"optim/equilibrium_norm", "optim/clip_threshold", "optim/predicted_rotation"}


def curves(figure, panel, dashed=False):
    """Return (steps, values) of the lines over all steps of the run."""
    lines = [line for line in figure.axes[panel].lines if line.is_dashed() == dashed]
    return [np.array(line.get_data(), float) for line in lines]


def contains(curves, wanted):
    wanted = np.array(wanted, float)
    return any(c.shape == wanted.shape and np.allclose(c, wanted, rtol=1e-12) for c in curves)


@pytest.mark.parametrize("is_predicted", [True, False])
def test_lines_hold_the_rows_and_predictions_are_dashed(write_run, short, is_predicted):
    """A baseline logs no predictions, and none are drawn."""
    if not is_predicted:
        short = [{k: v for k, v in row.items() if k not in PREDICTED} for row in short]
    figure = draw([read_run(write_run("a", short))])
    for key, (panel, factor) in PANELS.items():
        values = [[row["step"] for row in short if key in row]]
        values.append([factor * row[key] for row in short if key in row])
        wanted = is_predicted or key not in PREDICTED
        assert contains(curves(figure, panel, key in PREDICTED), values) == wanted, key


def test_each_run_has_its_color_and_name_on_1500_by_900(write_run, short):
    shown = {
        "a$b$c_d": r"a\$b\$c_d",
        "start_" + "x" * 200 + "_end": "start_" + "x" * 29 + "…" + "x" * 31 + "_end",
    }
    long = [f"group{i}/a_rather_long_folder_name_for_a_run_with_many_settings" for i in range(6)]
    shown |= dict(zip(long, long))
    figure = draw([read_run(write_run(name, short)) for name in shown])
    (legend,) = figure.legends
    colors = [handle.get_color() for handle in legend.legend_handles]
    assert len(set(colors)) == 8
    for panel in (RATIO, ROTATION):
        solid = [line for line in figure.axes[panel].lines if not line.is_dashed()]
        assert [line.get_color() for line in solid] == colors
    assert [text.get_text() for text in legend.get_texts()] == [*shown.values()]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert np.frombuffer(buffer.getvalue()[16:24], ">u4").tolist() == [1500, 900]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axis.get_tightbbox()) for axis in figure.axes)
    assert 0 <= box.x0 < box.x1 <= 1500


def test_long_runs_are_means_over_intervals_with_a_shade(write_run):
    values = [float(i % 5) for i in range(1000)]
    rows = [
        {"step": 1000 * (i + 1), "train/loss": value, "optim/clipped": value / 4}
        for i, value in enumerate(values)
    ]
    figure = draw([read_run(write_run("a", rows))])
    assert any(len(y) == 200 and np.allclose(y, 2.0) for _, y in curves(figure, LOSS))
    shade = figure.axes[LOSS].collections[0].get_datalim(figure.axes[LOSS].transData)
    assert (shade.y0, shade.y1) == (0.0, 4.0)
    assert any(len(y) == 20 and np.allclose(y, 50.0) for _, y in curves(figure, CLIP))
    assert not figure.axes[CLIP].collections  # smallest to largest is 0 to 100 % for any rate
    assert "means over 1/200 of the run; shading spans the smallest" in figure.get_supxlabel()


def test_single_row_is_visible_and_missing_metrics_are_named(write_run, short):
    for axis in draw([read_run(write_run("a", short[:1]))]).axes:
        points = [line for line in axis.lines if len(line.get_xdata()) == 1]
        assert points
        assert all(line.get_marker() not in ("", "None", None) for line in points)
    figure = draw([read_run(write_run("b", [{"step": 5, "eval/mlm_loss": 7.0}]))])
    for panel, axis in enumerate(figure.axes):
        assert ("not logged" in [t.get_text() for t in axis.texts]) == (panel != LOSS)


def test_diverged_run_ends_in_a_cross_and_flattens_no_other(write_run, short):
    diverged = [dict(row) for row in short if "train/loss" in row]
    diverged[-3]["train/mlm_loss"] = 1e6
    diverged[-2]["train/mlm_loss"] = diverged[-1]["train/mlm_loss"] = math.nan
    axis = draw([read_run(write_run("a", short)), read_run(write_run("b", diverged))]).axes[LOSS]
    (cross,) = [line for line in axis.lines if list(line.get_xdata()) == [diverged[-3]["step"]]]
    low, high = axis.get_ylim()
    assert low < cross.get_ydata()[0] < high < 20
    assert "last finite loss" in axis.texts[0].get_text()


def test_short_run_is_seen_beside_a_long_one(write_run, short):
    long = [{**row, "step": row["step"] * 5000} for row in short]
    brief = [{"step": 20, "train/mlm_loss": 9.0, "optim/param_norm": 50.0}]
    figure = draw([read_run(write_run("a", long)), read_run(write_run("b", brief))])
    axis = figure.axes[NORM]
    assert axis.transAxes.inverted().transform(axis.transData.transform((20, 50)))[0] > 0.1
    assert "step (log)" in [axis.get_xlabel() for axis in figure.axes]


def test_settings_of_matplotlib_are_neither_used_nor_changed(write_run, short):
    run = read_run(write_run("a", short))
    with matplotlib.rc_context({"lines.linestyle": ":", "figure.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        figure = draw([run])
        assert dict(matplotlib.rcParams) == before
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.axes[NORM].lines[0].get_linestyle() == "-"
