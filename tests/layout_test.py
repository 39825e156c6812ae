"""The direction of imports, and that every config builds."""

import ast
import importlib
import pathlib

import jax
import pytest

from sibert_jax.train import sharding
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sibert_jax"

# What a package may import of ours, besides itself.
MAY_IMPORT = {
    "optim": set(),
    "homogeneity": set(),
    "model": set(),
    "data": set(),
    "checkpoint": set(),
    "report": set(),
    "tasks": {"model", "data", "optim"},
    "runtime": set(),
    "train": {"optim", "homogeneity", "checkpoint", "tasks", "model", "data", "runtime"},
    "interop": {"model", "data", "checkpoint", "tasks", "train"},
    "inference": {"checkpoint", "data", "interop", "model", "tasks", "train"},
    "quantize": {"checkpoint", "data", "inference", "interop", "optim", "train"},
    "tools": {"checkpoint", "data", "report", "train", "runtime", "tasks"},
}
# The ground floor.
ANYWHERE = {
    "command",
    "config_file",
    "errors",
    "files",
    "keys",
    "lazy",
    "trees",
}
FRONT_DOORS = ("main.py", "__main__.py", "sweep.py")


def imported_packages(path: pathlib.Path) -> set[str]:
    """Packages of ours that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == "sibert_jax" and len(part) > 1}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_import_points_up(package):
    files = [path for path in (PACKAGE / package).rglob("*.py") if path.name not in FRONT_DOORS]
    assert files
    for path in files:
        wrong = imported_packages(path) - MAY_IMPORT[package] - ANYWHERE - {package, "__version__"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_an_import_that_points_up_is_seen(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from sibert_jax.train import loop\n")
    assert imported_packages(path) == {"train"}


FINETUNING = ("glue", "mnli", "squad2", "token_classification")  # their encoder is that of squad1


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=pytest.mark.slow if path.stem in FINETUNING else ())
        for path in sorted((ROOT / "configs").glob("[!_]*.py"))
    ],
)
def test_every_config_builds_and_shards_over_eight_devices(name):
    config = importlib.import_module(f"sibert_jax.configs.{name}").get_config()
    if config.data.path == "" and "labels" in config.task:
        config.data.path, config.task.labels = "train.csv", ("no", "yes")
    run = run_config(resolve(config))
    task = bare_task(run)
    batch = task.abstract_batch(1, run.data.seq_len)
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    for mesh in (sharding.make_mesh(8, 1, 1), sharding.make_mesh(2, 2, 2)):
        sharding.param_shardings(params, mesh, run.task_type.sharding)
    sizes = {k: sum(leaf.size for leaf in jax.tree.leaves(part)) for k, part in params.items()}
    assert sizes["encoder"] == encoder_size(run.model)


def encoder_size(c) -> int:
    """By the formulas of Devlin et al. 2019, without what SIBERT leaves out."""
    positions = c.max_len if c.positions == "learned" else 0
    tables = (c.vocab_size + positions + (2 if c.has_segments else 0)) * c.width
    matrices = 4 * c.width**2 + 2 * c.width * c.ffn_width
    if c.arch == "bert":
        biases = 4 * c.width + c.ffn_width + c.width
        return tables + 2 * c.width + c.depth * (matrices + biases + 4 * c.width)
    return tables + 2 * c.width + c.width**2 + c.depth * (matrices + c.ffn_width)
