"""Walk a jaxpr, assign every tensor a degree and collect the equations that this requires."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from sibert_jax.homogeneity import rules
from sibert_jax.homogeneity.degree import (
    ANY,
    ZERO,
    Degree,
    Leaf,
    Tree,
    all_needs,
    branch,
    combine,
    nodes,
    renumber,
    restrict,
    zero_where,
)
from sibert_jax.homogeneity.rules import Equations, Rule, Step
from sibert_jax.homogeneity.source import Site
from sibert_jax.homogeneity.values import Guards, Numbering, degree_of_constant, fold

MAX_OUTCOMES = 8  # per tensor; beyond that they are merged by requiring equal degrees


@dataclasses.dataclass(slots=True)
class Value:
    """An abstract tensor: its degree, its value number and, if all entries are equal, their value.

    Two tensors with the same number are equal for all parameters.
    """

    tree: Tree
    number: int
    constant: Any = None


@dataclasses.dataclass(slots=True)
class Row:
    """One operation of the program, with its operands and results."""

    site: Site
    outputs: list[Value]
    inputs: list[Value]


class Interpreter:
    """The state of one analysis: equations so far, value numbers, the program's operations."""

    def __init__(self):
        self.equations = Equations()
        self.rows: list[Row] = []
        self.write_needs = 0  # equations of writes to mutable arrays; every output needs them
        self.unknown: set[str] = set()  # primitives without a rule
        self.origin: dict[int, int] = {}  # number inside a loop -> number outside, for the table
        self.numbers = Numbering()
        self.guards = Guards(self.numbers)

    def mark(self) -> tuple[int, int]:
        """Return the current position, for `rewind`."""
        return len(self.equations), len(self.rows)

    def rewind(self, mark: tuple[int, int]) -> None:
        """Drop the equations and operations since `mark`; none of their tensors may be in use."""
        num_equations, num_rows = mark
        del self.equations[num_equations:]
        del self.rows[num_rows:]
        self.write_needs &= (1 << num_equations) - 1

    # Values

    def value(self, degree: Degree | None, needs: int = 0) -> Value:
        """Return a new tensor with a single degree."""
        return Value(Leaf(degree, needs), self.numbers.fresh())

    def renumbered(self, value: Value, leaf: Leaf | None = None) -> Value:
        """Return, under a new number, a tensor that enters or leaves a loop, branch or shard."""
        leaf = leaf or self.equations.merge(value.tree)
        new = self.value(leaf.degree, leaf.needs)
        self.origin[new.number] = value.number
        return new

    def constant(self, array: Any) -> Value:
        """Return the abstract tensor of a known array."""
        degree, entry = degree_of_constant(array)
        number = self.numbers.fresh() if entry is None else self.numbers.constant(entry)
        return Value(Leaf(degree), number, entry)

    def merged(self, values: Sequence[Value]) -> list[Leaf]:
        """Return one degree per tensor, requiring that its outcomes agree."""
        return [self.equations.merge(value.tree) for value in values]

    def with_one_degree(self, value: Value) -> Value:
        """Return the tensor with a single degree, requiring that its outcomes agree."""
        return Value(self.equations.merge(value.tree), value.number, value.constant)

    def _bounded(self, tree: Tree) -> Tree:
        is_large = sum(1 for _ in nodes(tree)) >= MAX_OUTCOMES  # a tree of n nodes has n + 1 leaves
        return self.equations.merge(tree) if is_large else tree

    # The walk

    def run(
        self, jaxpr: core.Jaxpr | core.ClosedJaxpr, args: Sequence[Value], calls: tuple
    ) -> list[Value]:
        """Return the outputs of a jaxpr (closed, or without constants) for these tensors.

        `calls` are the enclosing call equations, outermost first.
        """
        consts = []
        if isinstance(jaxpr, core.ClosedJaxpr):
            jaxpr, consts = jaxpr.jaxpr, [self.constant(array) for array in jaxpr.consts]
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom):
            return self.constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            outputs = self._apply(eqn, inputs, calls)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, eqn: core.JaxprEqn, inputs: list[Value], calls: tuple) -> list[Value]:
        """Apply the rule of one operation and return its outputs."""
        name = eqn.primitive.name
        rule = rules.RULES.get(name)
        step = Step(self.equations, Site(eqn, calls, tuple(value.constant for value in inputs)))
        if rule is not None and rule.kind == rules.HIGHER_ORDER:
            return rule.function(self, step, *inputs)
        if rule is None:
            outputs = self.unknown_outputs(step, inputs)
        elif rule.kind == rules.MIXING:
            outputs = self.mixed_outputs(step, rule.function, inputs)
        else:
            outputs = [self._aligned_output(step, rule, inputs)]
        self.record(step, outputs, inputs)
        return outputs

    def record(self, step: Step, outputs: Sequence[Value], inputs: Sequence[Value]) -> None:
        """Record an operation for the table."""
        self.rows.append(Row(step.site, list(outputs), list(inputs)))

    def unknown_outputs(self, step: Step, inputs: Sequence[Value]) -> list[Value]:
        """Handle a primitive without a rule: require degree 0 of operands and results."""
        self.unknown.add(step.eqn.primitive.name)
        leaves = self.merged(inputs)
        needs = self.equations.zero(step.site, [leaf.degree for leaf in leaves], "unknown")
        needs |= all_needs(leaves)
        if step.eqn.effects:  # it may write what another operation reads
            self.write_needs |= needs
        return [self.value(ZERO, needs) for _ in step.eqn.outvars]

    def mixed_outputs(self, step: Step, function: Callable, inputs: Sequence[Value]) -> list[Value]:
        """Apply a rule whose outputs depend on all elements of the operands."""
        leaves = self.merged(inputs)
        degrees = function(step, *(leaf.degree for leaf in leaves))
        if not isinstance(degrees, tuple):
            degrees = (degrees,) * len(step.eqn.outvars)
        needs = step.needs | all_needs(leaves)
        outputs = [
            # Integers out of bounds, or the maximum of no elements, give the smallest integer, not
            # 0.
            self.value(degree if step.is_inexact(i) or degree is not ANY else ZERO, needs)
            for i, degree in enumerate(degrees)
        ]
        name = step.eqn.primitive.name
        if name in ("reduce_sum", "reduce_max") and _is_real(step.eqn.outvars[0].aval):
            shape, axes = step.eqn.invars[0].aval.shape, tuple(step.params["axes"])
            outputs[0].number = self.numbers.reduction(name, inputs[0].number, shape, axes)
        return outputs

    def _aligned_output(self, step: Step, rule: Rule, inputs: list[Value]) -> Value:
        """Apply a rule whose output element depends on one element of each operand."""
        name, aval = step.eqn.primitive.name, step.eqn.outvars[0].aval
        if name == "convert_element_type" and step.eqn.invars[0].aval.dtype == aval.dtype:
            return inputs[0]
        if rule.kind == rules.MOVEMENT:
            if inputs[0].constant is not None and len(inputs) == 1:
                return inputs[0]
        elif (entry := fold(name, step.constants, aval.dtype)) is not None:
            return self.constant(entry)

        def on_leaves(leaves: list[Leaf]) -> Leaf:
            step.needs = 0
            degree = rule.function(step, *(leaf.degree for leaf in leaves))
            return Leaf(degree, step.needs | all_needs(leaves))

        if rule.kind == rules.ELEMENTWISE:
            inputs = [self._broadcast(v, a.aval, aval) for v, a in zip(inputs, step.eqn.invars)]
            tree = combine(on_leaves, self._guarded(inputs))
            numbers = [value.number for value in inputs]
            label = name if _is_real(aval) else f"{name} {aval.dtype}"
            return Value(self._bounded(tree), self.numbers.elementwise(label, _key(step), numbers))
        others = self.merged(inputs[1:])
        tree = combine(lambda leaves: on_leaves([*leaves, *others]), [inputs[0].tree])
        move = self._movement(step, [value.number for value in inputs[1:]])
        return Value(renumber(tree, move), move(inputs[0].number))

    def _guarded(self, inputs: list[Value]) -> list[Tree]:
        """Return the operands' trees, with any degree where a guard shows them to be zero."""
        trees = [value.tree for value in inputs]
        for tree in trees:
            for node in nodes(tree):
                outcome, zeros = self.guards.zeros_where(node.predicate)
                for i, value in enumerate(inputs):
                    if self.guards.is_zero_with(value.number, zeros):
                        trees[i] = zero_where(trees[i], node, outcome)
        return trees

    def _movement(self, step: Step, others: list[int]) -> Callable[[int], int]:
        """Return a function from a tensor's number to its number after this movement."""
        name, before = step.eqn.primitive.name, step.eqn.invars[0].aval
        if name == "broadcast_in_dim":
            dims = tuple(step.params["broadcast_dimensions"])
            shape = tuple(step.params["shape"])
            return lambda number: self.numbers.broadcast(number, shape, before.shape, dims)
        key = (name, before.shape, _key(step))
        return lambda number: self.numbers.moved(key, number, others)

    def _broadcast(self, value: Value, before: Any, after: Any) -> Value:
        """Repeat a tensor along the axes of length 1 that an elementwise operation broadcasts."""
        if before.shape == after.shape or value.constant is not None:
            return value
        dims = tuple(range(len(before.shape)))

        def move(number: int) -> int:
            return self.numbers.broadcast(number, after.shape, before.shape, dims)

        return Value(renumber(value.tree, move), move(value.number))

    def select(self, step: Step, predicate: Value, false: Value, true: Value) -> Value:
        """Return `where(predicate, true, false)`, keeping its two outcomes separate."""
        if predicate.constant is not None:
            return true if predicate.constant else false
        leaf, number = self.equations.merge(predicate.tree), predicate.number
        if number in self.numbers.negated:
            number, true, false = self.numbers.negated[number], false, true
            step.site.constants = (None, *step.site.constants[:0:-1])
        if isinstance(true.tree, Leaf) and isinstance(false.tree, Leaf):
            step.site.outcomes = (true.tree.degree, false.tree.degree)
        true_tree = restrict(true.tree, number, True)
        false_tree = restrict(false.tree, number, False)
        tree = branch(number, leaf.needs, true_tree, false_tree, step.site)
        numbers = [number, true.number, false.number]
        return Value(self._bounded(tree), self.numbers.elementwise("select", (), numbers))


def _key(step: Step) -> tuple:
    """Return the primitive's parameters, for value numbering."""
    return tuple(sorted(step.params.items(), key=lambda item: item[0]))


def _is_real(aval: Any) -> bool:
    """Tell whether a tensor holds real numbers or booleans."""
    return aval.dtype == jnp.bool_ or jnp.issubdtype(aval.dtype, jnp.floating)
