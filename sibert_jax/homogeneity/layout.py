"""Place modules on a column and tensors on lanes beside it, like the lines of a metro map."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Lane:
    """A tensor's way from the module that computes it to those that read it.

    Rows count from 0 at the top, lanes from 1 beside the column.
    """

    lane: int
    source: int
    targets: tuple[int, ...]
    degree: str

    @property
    def rows(self) -> tuple[int, int]:
        """The first and last row that the lane passes."""
        return min(self.source, *self.targets), max(self.source, *self.targets)


def column(links: list[tuple[str, str, str]]) -> list[str]:
    """Order modules as the program runs; one that only reads stands below all that it reads."""
    sources = list(dict.fromkeys(source for source, _, _ in links))
    last = {target: sources.index(source) for source, target, _ in links}
    readers = [target for target in last if target not in sources]
    order = []
    for i, source in enumerate(sources):
        order += [source, *(reader for reader in readers if last[reader] == i)]
    return order


def lanes(nodes: list[str], links: list[tuple[str, str, str]]) -> list[Lane]:
    """Give every tensor a lane, shorter ones nearer to the column, so that none overlap."""
    row = {node: i for i, node in enumerate(nodes)}
    targets: dict[tuple[int, str], list[int]] = {}
    for source, target, degree in links:
        targets.setdefault((row[source], degree), []).append(row[target])
    ways = [Lane(0, source, tuple(ends), degree) for (source, degree), ends in targets.items()]
    placed: list[Lane] = []
    for way in sorted(ways, key=lambda way: way.rows[1] - way.rows[0]):
        taken = {other.lane for other in placed if _overlap(way.rows, other.rows)}
        free = next(i for i in range(1, len(ways) + 1) if i not in taken)
        placed.append(dataclasses.replace(way, lane=free))
    return placed


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def without_common_prefix(nodes: list[str]) -> list[str]:
    """Shorten paths by the names that all of them begin with; single names stay."""
    parts = [node.split("/") for node in nodes]
    long = [path for path in parts if len(path) > 1]
    shared = 0
    while long and all(len(p) > shared + 1 for p in long) and len({p[shared] for p in long}) == 1:
        shared += 1
    return ["/".join(path[shared:] if len(path) > 1 else path) for path in parts]
