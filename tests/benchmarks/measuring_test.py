"""Ratios, tables and files of made-up values; the command line."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import measuring
from benchmarks.measuring import Result


def made_up() -> Result:
    values = {"bare": [10.0, 20.0], "loop": [9.0, 19.0]}
    rows = [
        row
        for group in ("small", "large")
        for row in measuring.rows(values, "bare", group, {"loop": {"MB": 1234.5}})
    ]
    return Result("A loop", "tokens/s", True, "the bare step", rows, ["One thing is left out."])


def test_ratios_are_taken_within_each_repeat():
    bare, loop = measuring.rows({"bare": [100, 10, 40], "loop": [90, 8, 40]}, "bare", "mini")
    assert bare == ("mini", "bare", 40, 10, 100, 1, 1, 1, {})
    assert loop == ("mini", "loop", 40, 8, 90, 0.9, 0.8, 1, {})


def test_every_second_repeat_runs_backwards():
    order = []
    timed = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert measuring.in_turn(timed, 3) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert order == list("abbaab")


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.94, "99.9"), (9.994, "9.99"), (0.12345, "0.123"), (0, "0.000")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value, text):
    assert measuring.number(value) == text


def test_command_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(command.BENCHMARKS, "loop", made_up)
    command.main(["loop", f"--out={tmp_path / 'new'}"])
    printed = capsys.readouterr().out
    for line in (
        "| size |  | tokens/s (least–greatest) | of the bare step | MB |",
        "| small | loop | 14.0 (9.00–19.0) | 0.925 (0.900–0.950) | 1,234 |",
        "One thing is left out.",
    ):
        assert line in printed
    written = json.loads((tmp_path / "new/loop.json").read_text())
    assert [tuple(row.values()) for row in written["rows"]] == [*map(tuple, made_up().rows)]
    assert {"jax", "commit", "cores", "load_average"} <= set(written["machine"])
    assert measuring.table(made_up()) in (tmp_path / "new/loop.md").read_text()
    assert (tmp_path / "new/loop.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_name_every_benchmark_is_run(tmp_path, monkeypatch):
    called = {}
    for name in command.BENCHMARKS:

        def noted(name=name, **options):
            called[name] = options
            return made_up()._replace(rows=[])

        monkeypatch.setitem(command.BENCHMARKS, name, noted)
    command.main([f"--out={tmp_path}", "--repeats=2", "--rivals=/python"])
    assert list(called) == list(command.BENCHMARKS)
    for name in ("pytorch", "pytorch_gpt"):
        assert called.pop(name) == {"repeats": 2, "python": "/python"}
    assert all(options == {"repeats": 2} for options in called.values())
    assert len(list(tmp_path.glob("*.json"))) == len(command.BENCHMARKS)


@pytest.mark.parametrize(
    ("argument", "words"),
    [("lop", "'lop'"), ("--repeats=0", "--repeats=0 must be at least 1")],
)
def test_wrong_command_line_ends_with_a_sentence(argument, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([argument])
    assert words in capsys.readouterr().err
