"""The files and folders that CONTRIBUTING.md names are there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+/\w+\.py)`", PAGE)
NAMED += re.findall(r"^(\w+/\S*)", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_it_exists(name):
    assert (ROOT / name).exists() or (ROOT / "sibert_jax" / name).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\S+)|`make (\S+)`", PAGE, re.MULTILINE))
def test_make_knows_the_target(target):
    assert f"\n{''.join(target)}: " in (ROOT / "Makefile").read_text()
