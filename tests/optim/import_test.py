"""`sibert_jax.optim` stands alone: JAX and optax, with what they bring, are enough."""

import ast
import pathlib
import subprocess
import sys

import pytest

import sibert_jax.optim

DEPENDENCIES = {"jax", "jaxlib", "optax", "numpy", "scipy", "ml_dtypes", "opt_einsum", "absl"}
ONLY = f"""
import sys
KNOWN = {DEPENDENCIES!r} | set(sys.stdlib_module_names)
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
for name in ("flax", "orbax", "chex", "sibert_jax.model"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error.name)
"""


def test_optim_takes_a_step_with_jax_and_optax_alone():
    done = subprocess.run(
        [sys.executable, "-c", ONLY + STEP], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "flax", "orbax", "chex", "sibert_jax.model"]


@pytest.mark.parametrize(
    "file", [*pathlib.Path(sibert_jax.optim.__file__).parent.rglob("*.py")], ids=lambda f: f.stem
)
def test_file_imports_nothing_but_jax_and_optax(file):
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    ours = {name for name in names if name.startswith("sibert_jax.optim")}
    allowed = {"jax", "optax", "numpy"} | set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in names - ours} <= allowed


def test_every_public_name_is_listed_and_documented():
    public = {
        name
        for name, value in vars(sibert_jax.optim).items()
        if not name.startswith("_") and (name == "equilibrium" or not isinstance(value, type(sys)))
    }
    assert set(sibert_jax.optim.__all__) == public
    assert all(getattr(sibert_jax.optim, name).__doc__ for name in public)
