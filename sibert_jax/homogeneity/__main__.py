"""Print the degree of every tensor of a network, its symmetries and the line that breaks them.

    python -m sibert_jax.homogeneity --config=sibert_base [--config.model.depth=2 ...]
    python -m sibert_jax.homogeneity my_package.my_module:my_function

`my_function()` takes nothing and returns (fn, params, *args). Exit status: 0 if the network is
certified as scale invariant (a config: in the leaves that its task declares so; a function: in all
of params), 1 if not, 2 if the input is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import traceback
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax import command
from sibert_jax.files import user_path
from sibert_jax.homogeneity import (
    Obstruction,
    Report,
    analyse,
    rescaling_error,
    unproven_symmetries,
)
from sibert_jax.homogeneity.flow import edges
from sibert_jax.homogeneity.layout import column, lanes, without_common_prefix

MAX_NODES = 40  # of the picture; deeper modules are drawn as one
FACTORS = (0.5, 3.0)  # by which --numerical rescales


class WrongInput(Exception):
    """One sentence about what the command line lacks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyse what the command line names and print it; return the exit status."""
    given, overrides = parse(arguments)
    try:
        found = (
            _from_config(given.config, overrides) if given.config else _from_path(given.function)
        )
        fn, params, args, mask = found
        report = analyse(fn, params, *args)
    except (ValueError, WrongInput) as error:
        command.fail(" ".join(str(error).split()))
    text = describe(report, mask, inside=given.inside)
    if given.numerical:
        text += "\n\n" + _numerical(fn, params, args, mask)
    print(text)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "homogeneity.md").write_text(text + "\n", encoding="utf-8")
        draw(report, mask, given.out / "homogeneity.png")
        print(f"\n{given.out / 'homogeneity.md'}\n{given.out / 'homogeneity.png'}")
    return 0 if report.is_invariant(mask) else 1


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and the overrides of the config; wrong ones end with one sentence."""
    parser = command.parser("sibert_jax.homogeneity", __doc__)
    parser.add_argument("function", nargs="?", metavar="MODULE:FUNCTION", help="what to analyse")
    parser.add_argument("--config", metavar="NAME[:VARIANT]", help="or the loss of a configuration")
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="folder for homogeneity.md and homogeneity.png",
    )
    parser.add_argument(
        "--inside", action="store_true", help="list tensors that stay inside their module too"
    )
    parser.add_argument(
        "--numerical", action="store_true", help="also rescale random parameters and compare"
    )
    given, overrides = parser.parse_known_args(arguments)
    if (given.config is None) == (given.function is None):
        command.fail("give either --config=NAME or the dotted path of a function.")
    if given.config is None and overrides:
        command.fail(f"stray argument {overrides[0]!r}; see --help.")
    return given, overrides


def _from_config(name: str, overrides: list[str]) -> tuple:
    """Return the loss of a config's task, with abstract parameters and batch."""
    from sibert_jax.train import build
    from sibert_jax.train.config_file import load_config

    run = build.run_config(load_config(name, overrides))
    task = build.analysable_task(build.bare_task(run), run)
    batch = task.abstract_batch(2, task.seq_lens[-1])
    params = jax.eval_shape(task.init, jax.random.key(run.seed), batch)
    dropout_key = jax.random.key(run.seed) if run.model.dropout > 0 else None

    def loss(params, batch, dropout_key):
        sums, totals = task.sums(params, batch, dropout_key), task.totals(batch)
        return sum(sums[name] / totals[name] for name in task.loss_names)

    return loss, params, (batch, dropout_key), task.invariance_mask(params)


def _from_path(path: str) -> tuple:
    """Return what the function at a dotted path names."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WrongInput(f"{path!r} cannot be imported ({error}); write module:function.") from None
    try:
        found = function()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise WrongInput(
            f"{path}() raised {type(error).__name__}: {' '.join(str(error).split())} "
            f"({frame.filename}:{frame.lineno}); it takes nothing and returns (fn, params, *args)."
        ) from error
    if not isinstance(found, tuple) or len(found) < 2 or not callable(found[0]):
        kinds = ", ".join(type(part).__name__ for part in found) if type(found) is tuple else ""
        raise WrongInput(
            f"{path}() must return (fn, params, *args), found {type(found).__name__}({kinds})."
        )
    return found[0], found[1], found[2:], None


def describe(report: Report, mask: Any, *, inside: bool) -> str:
    """Write the table, the symmetries, the blocks and the first obstruction as Markdown."""
    lines = ["# Degrees", "", report.table(mask, inside=inside), "", "# Symmetries", ""]
    for symmetry in report.symmetries():
        lines.append("- " + ", ".join(f"{name}: {k}" for name, k in symmetry.items()))
    lines += ["", "# Scale-invariant blocks", ""]
    lines += ["- " + ", ".join(block) for block in report.blocks()]
    if report.unknown_primitives():
        lines += ["", f"Primitives without a rule: {', '.join(report.unknown_primitives())}"]
    obstruction = report.obstruction(mask)
    subject = "all of params" if mask is None else "the leaves that the task declares"
    lines += ["", "# Verdict", ""]
    if obstruction is None:
        lines.append(f"Scale invariant, jointly in {subject}: certified.")
    else:
        lines.append(f"Not certified as scale invariant, jointly in {subject}: {obstruction}")
    return "\n".join(lines)


def _numerical(fn: Any, params: Any, args: tuple, mask: Any) -> str:
    """Rescale parameters (random ones in place of shapes) and tell what holds without a proof."""
    rng = np.random.default_rng(0)

    def concrete(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.asarray(np.abs(rng.normal(size=leaf.shape)), leaf.dtype)
        return jnp.ones(leaf.shape, leaf.dtype)

    params, args = jax.tree.map(concrete, (params, args))
    errors = [float(rescaling_error(fn, params, *args, c=c, mask=mask)) for c in FACTORS]
    lines = ["# Numerically", ""]
    for c, error in zip(FACTORS, errors, strict=True):
        lines.append(f"- relative change when the leaves are multiplied by {c:g}: {error:.1e}")
    for symmetry in unproven_symmetries(fn, params, *args):
        exponents = ", ".join(f"{name}: {k}" for name, k in symmetry.items())
        lines.append(f"- holds numerically, not proven: {exponents}")
    return "\n".join(lines)


def draw(report: Report, mask: Any, path: pathlib.Path) -> None:
    """Draw a node a module and a lane a tensor, labelled and coloured with its degree.

    The module that breaks the invariance has a thick red frame; the title names the line.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    links = _links(report, mask)
    nodes = column(links)
    obstruction = report.obstruction(mask)
    ways = lanes(nodes, links)
    colours = {degree: f"C{i}" for i, degree in enumerate(sorted({way.degree for way in ways}))}
    width = max((way.lane for way in ways), default=0) + 1
    figure, axes = pyplot.subplots(figsize=(5 + 0.3 * width, max(2, 0.4 * len(nodes))))
    for way in ways:
        # Leave below the middle of a node and arrive above it, each lane at its own height.
        x, colour, offset = way.lane, colours[way.degree], 0.1 + 0.25 * way.lane / width
        start, ends = way.source + offset, [target - offset for target in way.targets]
        axes.plot([0, x], [start, start], color=colour)
        axes.plot([x, x], [min(start, *ends), max(start, *ends)], color=colour)
        for end in ends:
            arrow = {"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (0, end), (x, end), arrowprops=arrow)
        label = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(x, start, way.degree, color=colour, ha="center", va="center", bbox=label)
    broken = _node_of(obstruction, nodes)
    for row, name in enumerate(without_common_prefix(nodes)):
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.4"}
        if nodes[row] == broken:
            box |= {"edgecolor": "red", "linewidth": 2.5}
        axes.text(-0.1, row, name or "(top)", ha="right", va="center", fontsize=9, bbox=box)
    axes.set(xlim=(0, width), ylim=(len(nodes), -1))
    title = "Degree of each tensor between modules"
    if obstruction is not None:
        title += f"\nbroken by: {obstruction.operands}, {obstruction.place}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.axis("off")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def _node_of(obstruction: Obstruction | None, nodes: list[str]) -> str | None:
    """Return the node that holds the operation: the longest path that its module begins with."""
    if obstruction is None:
        return None
    location = obstruction.location
    module = obstruction.module or (location.function if location else "")
    holding = [node for node in nodes if f"{module}/".startswith(f"{node}/")]
    return max(holding, key=len, default=None)


def _links(report: Report, mask: Any) -> list[tuple[str, str, str]]:
    """Return the edges, with paths as deep as the picture has room for."""
    tensors = report.tensors(mask)
    depth = max((tensor.module.count("/") + 1 for tensor in tensors), default=1)
    while True:
        links = edges(tensors, depth)
        if depth == 1 or len({node for link in links for node in link[:2]}) <= MAX_NODES:
            return links
        depth -= 1


if __name__ == "__main__":
    command.run(main)
