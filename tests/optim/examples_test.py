"""The examples of the docstrings and of examples/ run and learn; names are documented."""

import doctest
import importlib
import importlib.util
import pathlib
import pkgutil

import jax
import pytest

import sibert_jax.optim
from sibert_jax.optim import equilibrium

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
MODULES = [m.name for m in pkgutil.walk_packages(sibert_jax.optim.__path__, "sibert_jax.optim.")]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_public_function_has_an_example():
    public = [getattr(sibert_jax.optim, name) for name in sibert_jax.optim.__all__]
    public += [f for name, f in vars(equilibrium).items() if not name.startswith("_")]
    functions = [
        f for f in public if callable(f) and not isinstance(f, type) and f.__name__[:6] != "check_"
    ]
    assert len(functions) > 20
    assert [f.__name__ for f in functions if ">>>" not in (f.__doc__ or "")] == []


@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "num_steps", "learned"),
    [
        ("equinox_mlp", 250, lambda accuracy: accuracy > 0.9),
        pytest.param("jax_convnet", 80, lambda accuracy: accuracy > 0.8, marks=pytest.mark.slow),
        pytest.param(
            "nnx_gpt",  # always naming the commonest characters gives a loss of 3.3
            40,
            lambda losses: losses[0] > 4.0 and losses[1] < 3.2,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_example_is_short_and_learns(name, num_steps, learned):
    path = FOLDER / f"{name}.py"
    source = path.read_text()
    assert len(source.splitlines()) <= 80
    assert "# Before: " in source
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The examples are written for JAX as it comes, without this suite's strictness.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert learned(module.main(num_steps=num_steps))
