"""Exact solutions of sparse equations Σᵢ kᵢ·aᵢ = 0: a basis, and the finest blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from sibert_jax.homogeneity.degree import Degree

MAX_CHOICES = 20_000  # per search for a block; beyond that the block may be coarser than necessary

Rows = dict[int, dict[int, Fraction]]


def _reduced_rows(forms: Iterable[Degree]) -> Rows:
    """Return the equations in reduced row echelon form, by pivot: a_pivot + Σ k·a_free = 0."""
    rows: Rows = {}
    for form in dict.fromkeys(forms):
        row = dict(form.terms)
        for pivot in [i for i in row if i in rows]:
            _subtract(row, rows[pivot], row[pivot])
        if not row:
            continue
        pivot = max(row)
        scale = row[pivot]
        row = {i: k / scale for i, k in row.items()}
        for other in rows.values():
            if pivot in other:
                _subtract(other, row, other[pivot])
        rows[pivot] = row
    return rows


def _subtract(row: dict[int, Fraction], other: dict[int, Fraction], factor: Fraction) -> None:
    for i, k in other.items():
        rest = row.get(i, Fraction(0)) - factor * k
        if rest:
            row[i] = rest
        else:
            row.pop(i, None)


def null_space(forms: Iterable[Degree], size: int) -> list[dict[int, Fraction]]:
    """Return an integer basis of the exponents that satisfy all equations.

    One vector per free leaf, scaled to coprime integers with a positive first entry.
    """
    rows = _reduced_rows(forms)
    basis = []
    for free in range(size):
        if free in rows:
            continue
        vector = {free: Fraction(1)}
        for pivot, row in rows.items():
            if free in row:
                vector[pivot] = -row[free]
        basis.append(_whole_numbers(vector))
    return basis


def _whole_numbers(vector: dict[int, Fraction]) -> dict[int, Fraction]:
    """Scale a vector to coprime integers, the first one positive."""
    entries = dict(sorted((i, k) for i, k in vector.items() if k))
    if not entries:
        return {}
    scale = Fraction(math.lcm(*(k.denominator for k in entries.values())))
    scale /= math.gcd(*(int(k * scale) for k in entries.values()))
    if next(iter(entries.values())) < 0:
        scale = -scale
    return {i: k * scale for i, k in entries.items()}


def find_blocks(forms: Iterable[Degree], indices: list[int]) -> list[tuple[int, ...]]:
    """Return disjoint minimal sets of leaves whose joint scaling satisfies all equations.

    Leaves are tried in order: a solution that contains the leaf is shrunk as far as possible.
    Removing one solution from a larger one leaves a solution, so no other block is lost.
    """
    rows = _reduced_rows(forms)
    blocks = []
    for part in _components(rows, indices):
        search = _Search(rows, part)
        remaining = set(part)
        for leaf in part:
            if leaf not in remaining:
                continue
            block = search.minimal(leaf, remaining)
            if block:
                blocks.append(tuple(sorted(block)))
                remaining -= block
    return sorted(blocks)


def _components(rows: Rows, indices: list[int]) -> list[list[int]]:
    """Split the leaves into the finest parts whose exponents do not constrain each other.

    Leaves whose exponent is always 0 are omitted.
    """
    parent = {i: i for i in indices}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for row in rows.values():
        first, *others = row
        for other in others:
            parent[root(other)] = root(first)
    parts: dict[int, list[int]] = {}
    for i in indices:
        if not (i in rows and len(rows[i]) == 1):
            parts.setdefault(root(i), []).append(i)
    return list(parts.values())


class _Search:
    """Depth-first search for 0/1 solutions of the equations of one component."""

    def __init__(self, rows: Rows, part: list[int]):
        self.rows = [rows[i] for i in part if i in rows]
        self.touching = {i: [row for row in self.rows if i in row] for i in part}
        self.free_first = sorted(part, key=lambda i: (i in rows, i))
        self.choices = MAX_CHOICES  # left in the current search

    def minimal(self, leaf: int, allowed: set[int]) -> set[int] | None:
        """Return a solution within `allowed` that contains `leaf` and no smaller solution."""
        found = self.solve(leaf, allowed)
        for other in sorted(found or ()):
            if found and other != leaf and other in found:
                found = self.solve(leaf, found - {other}) or found
        return found

    def solve(self, leaf: int, allowed: set[int]) -> set[int] | None:
        """Return a set within `allowed` that contains `leaf` and scales jointly, or None."""
        self.choices = MAX_CHOICES
        values = dict.fromkeys(set(self.free_first) - allowed, 0) | {leaf: 1}
        if not all(self._possible(row, values) for row in self.rows):
            return None
        open_leaves = [i for i in self.free_first if i not in values]
        return {i for i, v in values.items() if v} if self._assign(open_leaves, values) else None

    def _assign(self, open_leaves: list[int], values: dict[int, int]) -> bool:
        """Assign 0 or 1 to every open leaf by backtracking, in `values`."""
        place, tried = 0, [0] * (len(open_leaves) + 1)
        while place < len(open_leaves):
            leaf = open_leaves[place]
            values.pop(leaf, None)
            if tried[place] == 2:
                tried[place] = 0
                place -= 1
                if place < 0:
                    return False
                continue
            values[leaf] = tried[place]
            tried[place] += 1
            self.choices -= 1
            if self.choices < 0:
                return False
            if all(self._possible(row, values) for row in self.touching[leaf]):
                place += 1
        return True

    def _possible(self, row: dict[int, Fraction], values: dict[int, int]) -> bool:
        """Tell whether the unassigned leaves can still satisfy Σ k·a = 0."""
        low = high = sum(k * values[i] for i, k in row.items() if i in values)
        for i, k in row.items():
            if i not in values:
                low, high = low + min(k, 0), high + max(k, 0)
        return low <= 0 <= high
