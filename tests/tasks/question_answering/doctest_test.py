"""The examples in the docstrings."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["offsets", "scoring", "windows"])
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(f"sibert_jax.tasks.question_answering.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
