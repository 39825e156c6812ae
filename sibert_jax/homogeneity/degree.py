"""The degree of a tensor: a linear form in the exponents of the parameter leaves.

Where an elementwise predicate selects between two tensors, a tree keeps the degrees of both
outcomes separate until an operation mixes elements: `where(z > 0, z, 1)` has the degree of z where
z > 0 and degree 0 elsewhere. So a guard is harmless if its result is discarded where the guard
acts, as in `where(z > 0, r / where(z > 0, z, 1), 0)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any


class Degree:
    """The degree of a tensor: Σᵢ kᵢ·aᵢ when parameter leaf i is multiplied by c^{aᵢ}.

    A tensor of degree d is multiplied by c^d. `terms` maps a leaf's index to kᵢ ≠ 0; the empty form
    is degree 0. Degrees add under products; under powers they are multiplied by the exponent.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[int, Fraction | int]):
        self.terms = {i: Fraction(k) for i, k in terms.items() if k}
        self._hash = hash(frozenset(self.terms.items()))

    @staticmethod
    def of_leaf(index: int) -> Degree:
        """Return the degree of parameter leaf `index` itself: its own exponent."""
        return Degree({index: Fraction(1)})

    def __add__(self, other: Degree) -> Degree:
        if not other.terms:
            return self
        if not self.terms:
            return other
        total = dict(self.terms)
        for i, k in other.terms.items():
            total[i] = total.get(i, 0) + k
        return Degree(total)

    def __neg__(self) -> Degree:
        return Degree({i: -k for i, k in self.terms.items()})

    def __sub__(self, other: Degree) -> Degree:
        return self + (-other) if other.terms else self

    def __mul__(self, factor: Fraction | int) -> Degree:
        return self if factor == 1 else Degree({i: k * factor for i, k in self.terms.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Degree) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        return bool(self.terms)

    def at(self, exponents: Mapping[int, Fraction | int]) -> Fraction:
        """Evaluate the form with exponent exponents[i] for leaf i, 0 if absent."""
        return sum((k * exponents[i] for i, k in self.terms.items() if i in exponents), Fraction(0))

    def named(self, names: list[str]) -> NamedDegree:
        """Return the form in terms of the leaves' names."""
        return NamedDegree({names[i]: k for i, k in sorted(self.terms.items())})

    def __repr__(self) -> str:
        return f"Degree({self.terms})"


class NamedDegree(Mapping[str, Fraction]):
    """A degree over the names of parameter leaves: a mapping from name to coefficient ≠ 0.

    It equals a dict with the same entries, and is a single pytree leaf.

    Example:
        >>> print(NamedDegree({"query": Fraction(1), "key": Fraction(-2)}))
        query - 2·key
    """

    def __init__(self, coefficients: Mapping[str, Fraction]):
        self._coefficients = dict(coefficients)

    def __getitem__(self, name: str) -> Fraction:
        return self._coefficients[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._coefficients)

    def __len__(self) -> int:
        return len(self._coefficients)

    def __hash__(self) -> int:
        return hash(frozenset(self._coefficients.items()))

    def __str__(self) -> str:
        text = ""
        for name, k in self.items():
            size = "" if abs(k) == 1 else f"{abs(k)}·"
            sign = ("-" if not text else " - ") if k < 0 else (" + " if text else "")
            text += f"{sign}{size}{name}"
        return text or "0"

    def __repr__(self) -> str:
        return f"NamedDegree({self})"


ZERO = Degree({})

# The degree of 0, ±inf and NaN: scaling does not change them, so they fit any degree.
ANY = None


@dataclasses.dataclass(slots=True)
class Leaf:
    """One degree for all elements of a tensor.

    `needs` is the set of equations that the degree relies on, as the bits of an int.
    """

    degree: Degree | None
    needs: int = 0


@dataclasses.dataclass(slots=True)
class Node:
    """`true` where the predicate numbered `predicate` holds, `false` elsewhere."""

    predicate: int
    predicate_needs: int
    true: Tree
    false: Tree
    site: Any  # the select that created it, for messages about the two outcomes


Tree = Leaf | Node


def all_needs(leaves: Iterable[Leaf]) -> int:
    """Return the union of the equations that the degrees rely on."""
    needs = 0
    for leaf in leaves:
        needs |= leaf.needs
    return needs


def nodes(tree: Tree) -> Iterator[Node]:
    """Yield every node of the tree."""
    if isinstance(tree, Node):
        yield tree
        yield from nodes(tree.true)
        yield from nodes(tree.false)


def branch(predicate: int, needs: int, true: Tree, false: Tree, site: Any) -> Tree:
    """Return `true` where the predicate holds, `false` elsewhere; a single leaf if they agree."""
    if isinstance(true, Leaf) and isinstance(false, Leaf) and true.degree == false.degree:
        return Leaf(true.degree, true.needs | false.needs | needs)
    return Node(predicate, needs, true, false, site)


def restrict(tree: Tree, predicate: int, outcome: bool) -> Tree:
    """Return the part of `tree` where the predicate has this outcome."""
    if isinstance(tree, Leaf):
        return tree
    if tree.predicate == predicate:
        return restrict(tree.true if outcome else tree.false, predicate, outcome)
    true = restrict(tree.true, predicate, outcome)
    false = restrict(tree.false, predicate, outcome)
    if true is tree.true and false is tree.false:
        return tree
    return branch(tree.predicate, tree.predicate_needs, true, false, tree.site)


def zero_where(tree: Tree, node: Node, outcome: bool) -> Tree:
    """Return the tree of a tensor that is zero where the node's predicate has this outcome."""
    parts = [
        Leaf(ANY) if side is outcome else restrict(tree, node.predicate, side)
        for side in (True, False)
    ]
    return branch(node.predicate, node.predicate_needs, *parts, node.site)


def combine(function: Callable[[list[Leaf]], Leaf], trees: list[Tree]) -> Tree:
    """Apply `function` to the leaves of every possible combination of outcomes."""
    node = next((tree for tree in trees if isinstance(tree, Node)), None)
    if node is None:
        return function(trees)
    outcomes = (
        combine(function, [restrict(tree, node.predicate, outcome) for tree in trees])
        for outcome in (True, False)
    )
    return branch(node.predicate, node.predicate_needs, *outcomes, node.site)


def renumber(tree: Tree, new_number: Callable[[int], int]) -> Tree:
    """Return the tree with new predicate numbers, after an operation that moves elements."""
    if isinstance(tree, Leaf):
        return tree
    true, false = renumber(tree.true, new_number), renumber(tree.false, new_number)
    return branch(new_number(tree.predicate), tree.predicate_needs, true, false, tree.site)
