"""Tables and diagrams of the tensors that pass between modules, with their degrees."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax.numpy as jnp

from sibert_jax.homogeneity.degree import Leaf, Tree, nodes
from sibert_jax.homogeneity.interpreter import Interpreter
from sibert_jax.homogeneity.obstruction import Obstruction
from sibert_jax.homogeneity.source import Site, locate, module_path

MAX_NODES = 40  # of the diagram; deeper modules are merged


@dataclasses.dataclass
class Tensor:
    """One row of the table: a tensor, the module that computes it and the modules that read it."""

    module: str
    operation: str
    shape: str  # e.g. "float32[2,8,16]"
    degree: str  # a number, "any" (zeros and infinities), or one per outcome of a predicate
    line: str  # of the user's source, "" if unknown
    readers: list[str]  # other modules


def _degree_text(tree: Tree, exponents: Mapping[int, Fraction]) -> str:
    """Write a tensor's degree under these exponents."""
    leaves = [tree] if isinstance(tree, Leaf) else []
    for node in nodes(tree):
        leaves += [side for side in (node.true, node.false) if isinstance(side, Leaf)]
    found = dict.fromkeys(
        str(leaf.degree.at(exponents)) for leaf in leaves if leaf.degree is not None
    )
    return " or ".join(found) or "any"


def tensors(interpreter: Interpreter, exponents: Mapping[int, Fraction]) -> list[Tensor]:
    """List every floating-point tensor in program order, with the modules that read it."""
    found: list[Tensor] = []
    by_number: dict[int, Tensor] = {}
    for row in interpreter.rows:
        module, line = _place(row.site)
        for value in row.inputs:
            tensor = by_number.get(_resolve(interpreter, value.number))
            if tensor and tensor.module != module and module not in tensor.readers:
                tensor.readers.append(module)
        for value, variable in zip(row.outputs, row.site.eqn.outvars, strict=True):
            number = _resolve(interpreter, value.number)
            if value.constant is not None or number in by_number or not _is_inexact(variable.aval):
                continue
            degree = _degree_text(value.tree, exponents)
            name = row.site.eqn.primitive.name
            shape = f"{variable.aval.dtype}[{','.join(map(str, variable.aval.shape))}]"
            by_number[number] = Tensor(module, name, shape, degree, line, [])
            found.append(by_number[number])
    return found


def _resolve(interpreter: Interpreter, number: int) -> int:
    """Return the tensor's number outside all loops and branches."""
    while number in interpreter.origin:
        number = interpreter.origin[number]
    return number


def _is_inexact(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _place(site: Site) -> tuple[str, str]:
    """Return the module path (the user's function if there is none) and the line."""
    location, _ = locate(site)
    module = module_path(site) or (location.function if location else "")
    return module.replace("<locals>.", ""), str(location) if location else ""


def markdown(found: list[Tensor]) -> str:
    """Write tensors as a Markdown table."""
    rows = ["| module | operation | tensor | degree | line |", "| --- | --- | --- | --- | --- |"]
    rows += [f"| {t.module} | {t.operation} | {t.shape} | {t.degree} | {t.line} |" for t in found]
    return "\n".join(rows)


# The diagram: modules in a column, tensors on lanes beside it, as on a metro map.


def draw(found: list[Tensor], obstruction: Obstruction | None, path: pathlib.Path) -> None:
    """Draw one node per module and one lane per tensor, labeled and colored with its degree.

    The module that breaks the invariance has a thick red frame; the title names the line.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    links = _links(found)
    modules = column(links)
    drawn = lanes(modules, links)
    colors = {degree: f"C{i}" for i, degree in enumerate(sorted({lane.degree for lane in drawn}))}
    width = max((lane.number for lane in drawn), default=0) + 1
    figure, axes = pyplot.subplots(figsize=(5 + 0.3 * width, max(2, 0.4 * len(modules))))
    for lane in drawn:
        # Lanes leave below the middle of a node and arrive above it, each at its own height.
        x, color, offset = lane.number, colors[lane.degree], 0.1 + 0.25 * lane.number / width
        start, ends = lane.source + offset, [target - offset for target in lane.targets]
        axes.plot([0, x], [start, start], color=color)
        axes.plot([x, x], [min(start, *ends), max(start, *ends)], color=color)
        for end in ends:
            arrow = {"arrowstyle": "->", "color": color, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (0, end), (x, end), arrowprops=arrow)
        label = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(x, start, lane.degree, color=color, ha="center", va="center", bbox=label)
    broken = _module_of(obstruction, modules)
    for row, name in enumerate(without_common_prefix(modules)):
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.4"}
        if modules[row] == broken:
            box |= {"edgecolor": "red", "linewidth": 2.5}
        axes.text(-0.1, row, name or "(top)", ha="right", va="center", fontsize=9, bbox=box)
    axes.set(xlim=(0, width), ylim=(len(modules), -1))
    title = "Degree of each tensor between modules"
    if obstruction is not None:
        title += f"\nbroken by: {obstruction.operands}, {obstruction.place}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.axis("off")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def _module_of(obstruction: Obstruction | None, modules: list[str]) -> str | None:
    """Return the module that contains the operation: the one with the longest matching path."""
    if obstruction is None:
        return None
    location = obstruction.location
    module = obstruction.module or (location.function if location else "")
    holding = [name for name in modules if f"{module}/".startswith(f"{name}/")]
    return max(holding, key=len, default=None)


def _links(found: list[Tensor]) -> list[tuple[str, str, str]]:
    """Return the edges, with module paths as deep as the diagram has room for."""
    depth = max((tensor.module.count("/") + 1 for tensor in found), default=1)
    while True:
        links = _edges(found, depth)
        if depth == 1 or len({name for link in links for name in link[:2]}) <= MAX_NODES:
            return links
        depth -= 1


def _edges(found: list[Tensor], depth: int) -> list[tuple[str, str, str]]:
    """Return (module, reading module, degree) with paths cut to `depth` names, each edge once."""

    def cut(path: str) -> str:
        return "/".join(path.split("/")[:depth])

    pairs = (
        (cut(tensor.module), cut(reader), tensor.degree)
        for tensor in found
        for reader in tensor.readers
    )
    return list(dict.fromkeys(edge for edge in pairs if edge[0] != edge[1]))


@dataclasses.dataclass(frozen=True)
class Lane:
    """A tensor's line from the module that computes it to those that read it.

    Rows count from 0 at the top, lanes (`number`) from 1 next to the column.
    """

    number: int
    source: int
    targets: tuple[int, ...]
    degree: str

    @property
    def rows(self) -> tuple[int, int]:
        """The first and last row that the lane spans."""
        return min(self.source, *self.targets), max(self.source, *self.targets)


def column(links: list[tuple[str, str, str]]) -> list[str]:
    """Order modules as the program runs; one that only reads goes below all its sources."""
    sources = list(dict.fromkeys(source for source, _, _ in links))
    last = {target: sources.index(source) for source, target, _ in links}
    readers = [target for target in last if target not in sources]
    order = []
    for i, source in enumerate(sources):
        order += [source, *(reader for reader in readers if last[reader] == i)]
    return order


def lanes(modules: list[str], links: list[tuple[str, str, str]]) -> list[Lane]:
    """Give every tensor a lane so that none overlap, shorter ones closer to the column."""
    row = {name: i for i, name in enumerate(modules)}
    targets: dict[tuple[int, str], list[int]] = {}
    for source, target, degree in links:
        targets.setdefault((row[source], degree), []).append(row[target])
    unplaced = [Lane(0, source, tuple(ends), degree) for (source, degree), ends in targets.items()]
    placed: list[Lane] = []
    for lane in sorted(unplaced, key=lambda lane: lane.rows[1] - lane.rows[0]):
        taken = {other.number for other in placed if _overlap(lane.rows, other.rows)}
        free = next(i for i in range(1, len(unplaced) + 1) if i not in taken)
        placed.append(dataclasses.replace(lane, number=free))
    return placed


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def without_common_prefix(modules: list[str]) -> list[str]:
    """Remove the common leading names of all paths; single names are kept."""
    parts = [name.split("/") for name in modules]
    long = [path for path in parts if len(path) > 1]
    shared = 0
    while long and all(len(p) > shared + 1 for p in long) and len({p[shared] for p in long}) == 1:
        shared += 1
    return ["/".join(path[shared:] if len(path) > 1 else path) for path in parts]
