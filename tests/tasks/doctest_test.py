"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import sibert_jax.tasks


def test_examples_in_docstrings_run():
    attempted = 0
    for module in pkgutil.walk_packages(sibert_jax.tasks.__path__, "sibert_jax.tasks."):
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0
        attempted += result.attempted
    assert attempted > 8
