"""`sibert_jax.optim` stands alone: JAX and optax, with what they bring, are enough."""

import ast
import pathlib
import subprocess
import sys

import sibert_jax.optim

BRING = {"jax", "jaxlib", "optax", "numpy", "scipy", "ml_dtypes", "opt_einsum", "absl"}
ONLY = f"""
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        ours = top == "sibert_jax" and (name == top or name.startswith("sibert_jax.optim"))
        known = top.startswith("_") or top in {BRING!r} | set(sys.stdlib_module_names)
        if not ours and not known:
            raise ModuleNotFoundError(name + " is not importable here", name=name)
sys.meta_path.insert(0, Only())
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
    """The control, in one process: what the rest of this package needs, and the rest itself."""
    names = ("flax", "orbax.checkpoint", "chex", "sibert_jax.model", "pytest")
    result = run(f"""
for name in {names!r}:
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
""")
    assert result.returncode == 0, result.stderr
    tops = ("flax", "orbax", "chex", "sibert_jax.model", "pytest")
    assert result.stdout.splitlines() == [f"{top} is not importable here" for top in tops]


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
