"""Bytes a parameter of optimizer state and of a checkpoint, for each row of the optimizer table."""

import pathlib
import tempfile
from collections.abc import Sequence

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments import claims
from sibert_jax.checkpoint import Checkpoints
from sibert_jax.config_file import load_config
from sibert_jax.report.figure import COLORS
from sibert_jax.train.config import run_config
from sibert_jax.train.optimizer_table import TABLE, make_optimizer
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task

SECONDS = {"minutes": 1.0, "hours": 2.0, "gpu": 2.0}
WRITTEN = ("scale_invariant_sgd", "momentum", "adamw", "adafactor")  # also at minutes
TINY = ("--config.model.width=64", "--config.model.ffn_width=256", "--config.model.num_heads=1")


def points(scale: str) -> list[dict]:
    """All rows at base size; some of them, or all, as a checkpoint of a tiny model too."""
    return [
        {
            "optimizer": name,
            "config": "sibert_base",
            "written": scale != "minutes" or name in WRITTEN,
        }
        for name in TABLE
    ]


def compute(point: dict) -> dict:
    """Bytes a parameter, every parameter under the optimizer; a checkpoint as it lies on disk."""
    params, state = shapes(point["optimizer"], load_config(point["config"]))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    result = {
        "num_parameters": size,
        "state": nbytes(state) / size,
        "checkpoint": (nbytes(params) + nbytes(state)) / size,
    }
    if point["written"]:
        result |= written(*shapes(point["optimizer"], load_config("mini:sibert", TINY)))
    return result


def shapes(name: str, config) -> tuple:
    """Parameters of a config and the state of an optimizer of all of them; nothing is allocated."""
    run = run_config(resolve(config))
    task = bare_task(run)
    batch = task.abstract_batch(1, run.data.seq_len)
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    rate = optax.constant_schedule(1e-3)
    decay = 0.0 if name == "hyperball" else 0.01
    tx = make_optimizer(name, {}, rate, decay, mask=lambda tree: jax.tree.map(lambda _: True, tree))
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        return params, jax.eval_shape(tx.init, params)


def nbytes(tree) -> int:
    """Of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def written(params, state) -> dict:
    """Bytes a parameter in the files of a checkpoint; numbers are random, so that none compress."""
    rng = np.random.default_rng(0)

    def filled(leaf):
        if np.issubdtype(leaf.dtype, np.floating):
            return jax.numpy.asarray(rng.standard_normal(leaf.shape), leaf.dtype)
        return jax.numpy.zeros(leaf.shape, leaf.dtype)

    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, keep=1)
        checkpoints.save(
            1, jax.tree.map(filled, params), {"opt_state": jax.tree.map(filled, state)}, {}
        )
        checkpoints.close()
        files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
        found = sum(path.stat().st_size for path in files)
    expected = nbytes(params) + nbytes(state)
    return {"written": round(found / size, 1), "expected": round(expected / size, 1)}


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """A bar an optimizer: weights, then state."""
    figure.set_size_inches(16, 8)
    axis = figure.subplots()
    found = sorted(lines, key=lambda line: line["result"]["state"])
    places = np.arange(len(found))
    state = np.array([line["result"]["state"] for line in found])
    axis.barh(places, np.full(len(found), 4.0), color="#BBBBBB", label="weights, float32")
    axis.barh(places, state, left=4.0, color=COLORS[0], label="optimizer state")
    marked = False
    for place, line in zip(places, found):
        value = line["result"]["state"]
        axis.text(min(4.1 + value, 17), place, f"{value:.2f}", va="center", fontsize=10)
        if line["point"]["written"]:
            label = "" if marked else "on disk, 2 layers × 64"
            marked = True
            x = line["result"]["written"] - line["result"]["expected"] + 4 + value
            axis.plot(x, place, "|", color=COLORS[1], markersize=16, markeredgewidth=3, label=label)
    axis.set_yticks(places, [line["point"]["optimizer"] for line in found])
    axis.invert_yaxis()
    axis.set_xlim(0, 18)  # one bar is longer
    axis.set_xlabel("bytes a parameter of SIBERT-base in a checkpoint; the number is the state's")
    claims.legend(axis, loc="center right")


def table(lines: Sequence[dict]) -> str:
    """Bytes a parameter."""
    rows = []
    for line in lines:
        r = line["result"]
        disk = (f"{r['written']:.1f}", f"{r['expected']:.1f}") if "written" in r else ("–", "–")
        name = f"`{line['point']['optimizer']}`"
        rows.append((name, f"{r['state']:.3f}", f"{r['checkpoint']:.3f}", *disk))
    header = ("optimizer", "state, base size", "checkpoint, base size", "tiny checkpoint on disk")
    return claims.markdown((*header, "tiny checkpoint by its shapes"), rows)
