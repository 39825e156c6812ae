"""`sibert_jax.optim` stands alone: JAX and optax, with what they bring, are enough."""

import ast
import pathlib
import subprocess
import sys

import sibert_jax.optim

BRING = {"jax", "jaxlib", "optax", "numpy", "scipy", "ml_dtypes", "opt_einsum", "absl"}
ONLY = f"""
import sys
KNOWN = {BRING!r} | set(sys.stdlib_module_names)
class Only:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top == "sibert_jax":
            known = name == top or name.startswith("sibert_jax.optim")
        else:
            known = top in KNOWN or top.startswith("_")
        return self.finder.find_spec(name, path, target) if known else None
sys.meta_path = [Only(finder) for finder in sys.meta_path]
"""
STEP = """
import jax.numpy as jnp
from sibert_jax.optim import *
x = {"w": jnp.ones((2, 3))}
tx = scale_invariant_sgd(0.1, 0.1)
print(tx.update(x, tx.init(x), x)[1].count)
"""
FOLDER = pathlib.Path(sibert_jax.optim.__file__).parent


def run(code):
    return subprocess.run(
        [sys.executable, "-c", ONLY + code], capture_output=True, text=True, check=False
    )


def test_optim_imports_and_steps_with_jax_and_optax_alone():
    result = run(STEP)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "1\n"


def test_nothing_else_is_importable_there():
    """The control: what the rest of this package needs, and the rest itself."""
    names = ("flax", "orbax", "chex", "pytest", "sibert_jax.model")
    result = run(f"""
for name in {names!r}:
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error.name)
""")
    assert result.stdout.split() == list(names), result.stderr


def imported_names(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def strangers(source):
    standard = set(sys.stdlib_module_names)
    return {
        name
        for name in imported_names(source)
        if name.split(".")[0] not in standard | {"jax", "optax", "numpy"}
        and not name.startswith("sibert_jax.optim")
    }


def test_no_file_of_optim_imports_anything_else():
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    assert {file.name: strangers(file.read_text()) for file in files} == {
        file.name: set() for file in files
    }
    assert strangers("import flax.linen\nfrom sibert_jax.model import bert") == {
        "flax.linen",
        "sibert_jax.model",
    }


def test_every_public_name_is_listed_and_documented():
    for name in sibert_jax.optim.__all__:
        assert getattr(sibert_jax.optim, name).__doc__
    assert sorted(sibert_jax.optim.__all__) == sorted(
        name
        for name, value in vars(sibert_jax.optim).items()
        if not name.startswith("_") and (name == "equilibrium" or not isinstance(value, type(sys)))
    )
