"""Every fault of docs/faults.md has a test."""

import pathlib
import re

TESTS = pathlib.Path(__file__).parents[1]


def test_every_row_of_the_page_names_tests_that_there_are():
    page = (TESTS.parent / "docs/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", page.split("\n## ")[-1], re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, files in rows:
        names = re.findall(r"`(\S+_test\.py)`", files)
        assert names, number
        assert all((TESTS / name).is_file() for name in names), files
