"""The examples in docstrings are true, and importing the package is cheap."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import sibert_jax.data

MODULES = [name for _, name, _ in pkgutil.iter_modules(sibert_jax.data.__path__)]
HEAVY = ("jax", "flax", "tokenizers", "tensorflow_datasets", "tensorflow", "pyarrow", "clu")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module(f"sibert_jax.data.{name}")
    assert doctest.testmod(module).failed == 0


def test_importing_the_package_loads_numpy_alone():
    program = f"import sys, sibert_jax.data; print([m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
