"""Imports, documentation and examples of `sibert_jax.optim`."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import jax
import pytest

import sibert_jax.optim
from sibert_jax.optim import equilibrium

ROOT = pathlib.Path(__file__).parents[2]
MODULES = [m.name for m in pkgutil.walk_packages(sibert_jax.optim.__path__, "sibert_jax.optim.")]


def test_optim_imports_nothing_but_jax_optax_and_numpy():
    allowed = {"jax", "optax", "numpy"} | set(sys.stdlib_module_names)
    package = ROOT / "sibert_jax"
    for file in [package / "__init__.py", package / "lazy.py", *(package / "optim").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        names |= {f"{n.module}.{alias.name}" for n in froms for alias in n.names}
        light = ("sibert_jax.optim", "sibert_jax.lazy")
        others = {name for name in names if not name.startswith(light)}
        assert {name.split(".")[0] for name in others} <= allowed, file


def test_every_public_name_is_listed_and_has_an_example():
    public = [getattr(sibert_jax.optim, name) for name in sibert_jax.optim.__all__]
    assert all(value.__doc__ for value in public)
    formulas = [f for f in vars(equilibrium).values() if inspect.getmodule(f) is equilibrium]
    functions = [f for f in public + formulas if inspect.isfunction(f) and f.__name__[0] != "_"]
    assert len(functions) > 20
    assert [f.__name__ for f in functions if ">>>" not in f.__doc__] == []


def test_psgd_is_imported_when_it_is_first_used():
    program = """
import sys
from sibert_jax import optim
assert "sibert_jax.optim.psgd" not in sys.modules
from sibert_jax.optim import scale_by_psgd_kron
assert optim.scale_by_psgd_kron is scale_by_psgd_kron
try:
    optim.scale_by_psgd_cron
except AttributeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "module 'sibert_jax.optim' has no attribute 'scale_by_psgd_cron'\n"


@pytest.mark.parametrize(
    "module",
    [pytest.param(m, marks=[pytest.mark.slow] if ".psgd." in m else []) for m in MODULES],
)
def test_docstring_examples_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "num_steps", "learned"),
    [
        ("equinox_mlp", 250, lambda accuracy: accuracy > 0.9),
        ("jax_convnet", 80, lambda accuracy: accuracy > 0.8),
        # Always naming the commonest characters gives a loss of 3.3.
        ("nnx_gpt", 40, lambda losses: losses[0] > 4.0 and losses[1] < 3.2),
    ],
)
def test_example_is_short_and_learns(name, num_steps, learned):
    path = ROOT / f"examples/{name}.py"
    assert len(path.read_text().splitlines()) <= 80
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The examples are written for JAX as it comes, without this suite's strictness.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert learned(module.main(num_steps=num_steps))
