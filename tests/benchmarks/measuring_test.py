"""Measuring in turn, ratios, table, picture and files, on values that are made up."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import measuring
from benchmarks.measuring import Result


def made_up(*, notes=()) -> Result:
    values = {"bare": [10.0, 20.0], "loop": [9.0, 19.0]}
    rows = [
        row
        for group in ("small", "large")
        for row in measuring.rows(values, "bare", group, {"loop": {"MB": 1234.5}})
    ]
    return Result("A loop", "tokens/s", True, "the bare step", rows, list(notes))


def test_ratios_are_taken_within_each_repeat():
    bare, loop = measuring.rows({"bare": [100, 10, 40], "loop": [90, 8, 40]}, "bare", "mini")
    assert bare == ("mini", "bare", 40, 10, 100, 1, 1, 1, {})
    assert loop == ("mini", "loop", 40, 8, 90, 0.9, 0.8, 1, {})


def test_every_second_repeat_runs_backwards():
    order = []
    timed = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert measuring.in_turn(timed, 3) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert order == list("abbaab")


def test_the_table_has_further_columns_and_notes():
    lines = measuring.table(made_up(notes=["One thing is left out."])).splitlines()
    assert lines[0] == "| size |  | tokens/s (least–greatest) | of the bare step | MB |"
    assert lines[3] == "| small | loop | 14.0 (9.00–19.0) | 0.925 (0.900–0.950) | 1,234 |"
    assert lines[2].endswith("| 1.000 (1.000–1.000) |  |")
    assert lines[-1] == "One thing is left out."


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.94, "99.9"), (9.994, "9.99"), (0.12345, "0.123"), (0, "0.000")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value, text):
    assert measuring.number(value) == text


def test_bars_are_as_long_as_the_medians_and_whiskers_reach_the_range(tmp_path, monkeypatch):
    import matplotlib.figure

    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *args, **kwargs: figures.append(figure) or save(figure, *args, **kwargs),
    )
    measuring.draw(made_up(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    panels = figures[0].axes
    assert [panel.get_title(loc="left") for panel in panels] == ["small", "large"]
    assert [patch.get_width() for patch in panels[0].patches] == [15, 14]
    (whiskers,) = panels[0].collections
    assert [segment[:, 0].tolist() for segment in whiskers.get_segments()] == [[10, 20], [9, 19]]
    assert "more is better" in panels[1].get_xlabel()


def test_the_command_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    result = made_up(notes=["One thing is left out."])
    monkeypatch.setitem(command.BENCHMARKS, "loop", lambda: result)
    command.main(["loop", f"--out={tmp_path / 'new'}"])
    printed = capsys.readouterr().out
    assert printed.startswith("python")
    table = measuring.table(result)
    assert table in printed
    written = json.loads((tmp_path / "new/loop.json").read_text())
    assert [tuple(row.values()) for row in written["rows"]] == [tuple(row) for row in result.rows]
    assert {"jax", "commit", "cores", "load_average"} <= set(written["machine"])
    page = (tmp_path / "new/loop.md").read_text()
    assert table in page
    assert "![A loop](loop.png)" in page
    assert (tmp_path / "new/loop.png").exists()


def test_without_a_name_every_benchmark_is_run_as_the_command_line_says(tmp_path, monkeypatch):
    called = {}
    for name in command.BENCHMARKS:

        def noted(name=name, **options):
            called[name] = options
            return made_up()._replace(rows=[])

        monkeypatch.setitem(command.BENCHMARKS, name, noted)
    command.main([f"--out={tmp_path}", "--repeats=2", "--rivals=/python"])
    assert list(called) == list(command.BENCHMARKS)
    assert called.pop("pytorch") == {"repeats": 2, "python": "/python"}
    assert all(options == {"repeats": 2} for options in called.values())
    assert len(list(tmp_path.glob("*.json"))) == len(command.BENCHMARKS)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [("lop", "'lop'"), ("--repeats=0", "--repeats=0 must be at least 1")],
)
def test_a_wrong_command_line_ends_with_a_sentence(argument, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([argument])
    assert sentence in capsys.readouterr().err
