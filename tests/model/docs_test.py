"""The blocks of docs/attention.md run, and its links lead somewhere."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs/attention.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S))
def test_python_blocks_run(block, capsys):
    exec(compile(block, PAGE.name, "exec"), {})
    assert capsys.readouterr().out.startswith("(2, 10, 4, 16) ")


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert (PAGE.parent / target).exists(), target
