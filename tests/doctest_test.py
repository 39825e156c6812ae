"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import sibert_jax

PACKAGES = (
    *(
        "checkpoint",
        "data",
        "inference",
        "interop",
        "quantize",
        "report",
        "runtime",
        "tasks",
        "tools",
        "train",
    ),
    "trees",
)
MODULES = pkgutil.walk_packages(sibert_jax.__path__, "sibert_jax.")
NAMES = [module.name for module in MODULES if module.name.split(".")[1] in PACKAGES]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.IGNORE_EXCEPTION_DETAIL
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0
