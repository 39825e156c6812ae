"""Walk a jaxpr, give every tensor a degree and collect the equations that this requires."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from sibert_jax.homogeneity import cases, constants, registry
from sibert_jax.homogeneity.cases import Leaf, Tree
from sibert_jax.homogeneity.degree import ANY, ZERO, Degree
from sibert_jax.homogeneity.equation import Equation, Site
from sibert_jax.homogeneity.guards import Guards
from sibert_jax.homogeneity.numbering import Numbering
from sibert_jax.homogeneity.step import Step


@dataclasses.dataclass(slots=True)
class Value:
    """An abstract tensor: its degree, its number and, if all entries equal one, that constant.

    Two tensors with the same number are equal, whatever the parameters are.
    """

    tree: Tree
    number: int
    constant: Any = None


@dataclasses.dataclass(slots=True)
class Row:
    """One line of the program with the degrees of its outputs."""

    site: Site
    outputs: list[Value]
    inputs: list[Value]


class Interpreter:
    """The state of one analysis: equations so far, tensors by number, the program's lines."""

    def __init__(self):
        self.equations: list[Equation] = []
        self.rows: list[Row] = []
        self.always = 0  # equations that every output needs: what is written into mutable arrays
        self.unknown: dict[str, Site] = {}
        self.same: dict[int, int] = {}  # a loop's tensor -> the tensor outside that it stands for
        self.numbers = Numbering()
        self.guards = Guards(self.numbers)

    # Equations

    def _require(self, form: Degree, kind: str, operands: Sequence, site: Site | None) -> int:
        if not form:
            return 0
        self.equations.append(Equation(form, kind, tuple(operands), site))
        return 1 << (len(self.equations) - 1)

    def equal(self, site: Site, degrees: Sequence[Degree | None]) -> tuple[Degree | None, int]:
        """Require equal degrees; return them and the equations that say so."""
        first = next((degree for degree in degrees if degree is not ANY), ANY)
        needs = 0
        for degree in degrees:
            if degree is not ANY and degree is not first:
                needs |= self._require(degree - first, "equal", degrees, site)
        return first, needs

    def zero(self, site: Site, degrees: Sequence[Degree | None], kind: str = "zero") -> int:
        """Require degree 0 of every operand; return the equations that say so."""
        needs = 0
        for degree in degrees:
            if degree is not ANY:
                needs |= self._require(degree, kind, degrees, site)
        return needs

    # Values

    def value(self, degree: Degree | None, needs: int = 0) -> Value:
        """Return a new tensor of one degree."""
        return Value(Leaf(degree, needs), self.numbers.fresh())

    def stand_in(self, value: Value, leaf: Leaf | None = None) -> Value:
        """Return a new tensor for one that enters or leaves a loop, branch or shard."""
        leaf = leaf or self.collapse(value.tree)
        new = self.value(leaf.degree, leaf.needs)
        self.same[new.number] = value.number
        return new

    def constant(self, array: Any) -> Value:
        """Return the tensor that stands for a known array."""
        degree, entry = constants.degree_of(array)
        number = self.numbers.fresh() if entry is None else self.numbers.constant(entry)
        return Value(Leaf(degree), number, entry)

    def collapse(self, tree: Tree) -> Leaf:
        """Merge a tensor's outcomes into one degree, requiring that they agree."""
        if isinstance(tree, Leaf):
            return tree
        true, false = self.collapse(tree.true), self.collapse(tree.false)
        degree, needs = self.equal(tree.site, (true.degree, false.degree))
        return Leaf(degree, needs | true.needs | false.needs | tree.predicate_needs)

    def whole(self, value: Value) -> Value:
        """Return the tensor with one degree for all its elements."""
        if isinstance(value.tree, Leaf):
            return value
        return Value(self.collapse(value.tree), value.number, value.constant)

    def _bounded(self, tree: Tree) -> Tree:
        return self.collapse(tree) if cases.count(tree) > cases.MAX_LEAVES else tree

    # The walk

    def run(self, jaxpr: core.Jaxpr, consts: Sequence, args: Sequence[Value], calls: tuple) -> list:
        """Return the outputs of `jaxpr` on these tensors; `calls` are the enclosing equations."""
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom):
            return self.constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            outputs = self._apply(eqn, inputs, calls)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def run_closed(self, closed: core.ClosedJaxpr, args: Sequence[Value], calls: tuple) -> list:
        """Return the outputs of a closed jaxpr, whose constants are known arrays."""
        return self.run(closed.jaxpr, [self.constant(c) for c in closed.consts], args, calls)

    def _apply(self, eqn: core.JaxprEqn, inputs: list[Value], calls: tuple) -> list[Value]:
        name = eqn.primitive.name
        rule = registry.RULES.get(name)
        step = Step(self, eqn, calls, tuple(value.constant for value in inputs))
        if rule is not None and rule.kind == registry.HIGHER_ORDER:
            return rule.function(step, *inputs)
        if rule is None:
            outputs = self.unknown_outputs(step, inputs)
        elif rule.kind == registry.MIXING:
            outputs = self.mixed_outputs(step, rule.function, inputs)
        else:
            outputs = [self._aligned_output(step, rule, inputs)]
        self.record(step, outputs, inputs)
        return outputs

    def record(self, step: Step, outputs: list[Value], inputs: list[Value]) -> None:
        """Keep a line of the program for the table."""
        self.rows.append(Row(step.site, outputs, inputs))

    def unknown_outputs(self, step: Step, inputs: list[Value]) -> list[Value]:
        """Treat a primitive without a rule: unchanged operands give unchanged results."""
        self.unknown.setdefault(step.eqn.primitive.name, step.site)
        leaves = [self.collapse(value.tree) for value in inputs]
        needs = self.zero(step.site, [leaf.degree for leaf in leaves], "unknown")
        for leaf in leaves:
            needs |= leaf.needs
        if step.eqn.effects:  # it may write what another operation reads
            self.always |= needs
        return [self.value(ZERO, needs) for _ in step.eqn.outvars]

    def mixed_outputs(self, step: Step, function: Any, inputs: list[Value]) -> list[Value]:
        """Apply a rule whose outputs depend on all elements of the operands."""
        leaves = [self.collapse(value.tree) for value in inputs]
        degrees = function(step, *(leaf.degree for leaf in leaves))
        if not isinstance(degrees, tuple):
            degrees = (degrees,) * len(step.eqn.outvars)
        needs = step.needs
        for leaf in leaves:
            needs |= leaf.needs
        outputs = [
            # An integer out of bounds, or the maximum of none, is the smallest there is, not 0.
            self.value(degree if step.is_inexact(i) or degree is not ANY else ZERO, needs)
            for i, degree in enumerate(degrees)
        ]
        name = step.eqn.primitive.name
        if name in ("reduce_sum", "reduce_max") and _is_real(step.eqn.outvars[0].aval):
            shape, axes = step.eqn.invars[0].aval.shape, tuple(step.params["axes"])
            outputs[0].number = self.numbers.reduction(name, inputs[0].number, shape, axes)
        return outputs

    def _aligned_output(self, step: Step, rule: registry.Rule, inputs: list[Value]) -> Value:
        """Apply a rule whose output element depends on one element of each operand."""
        name, aval = step.eqn.primitive.name, step.eqn.outvars[0].aval
        if name == "convert_element_type" and step.eqn.invars[0].aval.dtype == aval.dtype:
            return inputs[0]
        if rule.kind == registry.MOVEMENT:
            if inputs[0].constant is not None and len(inputs) == 1:
                return inputs[0]
        elif (entry := constants.fold(name, step.constants, aval.dtype)) is not None:
            return self.constant(entry)

        def on_leaves(leaves: list[Leaf]) -> Leaf:
            step.needs = 0
            degree = rule.function(step, *(leaf.degree for leaf in leaves))
            needs = step.needs
            for leaf in leaves:
                needs |= leaf.needs
            return Leaf(degree, needs)

        if rule.kind == registry.ELEMENTWISE:
            inputs = [self._broadcast(v, a.aval, aval) for v, a in zip(inputs, step.eqn.invars)]
            tree = cases.apply(on_leaves, self._guarded(inputs))
            numbers = [value.number for value in inputs]
            label = name if _is_real(aval) else f"{name} {aval.dtype}"
            return Value(self._bounded(tree), self.numbers.elementwise(label, _key(step), numbers))
        others = [self.collapse(value.tree) for value in inputs[1:]]
        tree = cases.apply(lambda leaves: on_leaves([*leaves, *others]), [inputs[0].tree])
        move = self._movement(step, [value.number for value in inputs[1:]])
        return Value(cases.rename(tree, move), move(inputs[0].number))

    def _guarded(self, inputs: list[Value]) -> list[Tree]:
        """Return the operands' outcomes; what is zero where a guard acts fits any degree there."""
        trees = [value.tree for value in inputs]
        for tree in trees:
            for node in cases.nodes(tree):
                outcome, zeros = self.guards.zeros_where(node.predicate)
                for i, value in enumerate(inputs):
                    if self.guards.is_zero_with(value.number, zeros):
                        trees[i] = cases.zero_where(trees[i], node, outcome)
        return trees

    def _movement(self, step: Step, others: list[int]) -> Callable[[int], int]:
        """Return the function from a tensor's number to its number after this movement."""
        name, before = step.eqn.primitive.name, step.eqn.invars[0].aval
        if name == "broadcast_in_dim":
            dims = tuple(step.params["broadcast_dimensions"])
            shape = tuple(step.params["shape"])
            return lambda number: self.numbers.broadcast(number, shape, before.shape, dims)
        key = (name, before.shape, _key(step))
        return lambda number: self.numbers.moved(key, number, others)

    def _broadcast(self, value: Value, before: Any, after: Any) -> Value:
        """Repeat a tensor along the axes of length 1 that an elementwise operation fills."""
        if before.shape == after.shape or value.constant is not None:
            return value
        dims = tuple(range(len(before.shape)))

        def move(number: int) -> int:
            return self.numbers.broadcast(number, after.shape, before.shape, dims)

        return Value(cases.rename(value.tree, move), move(value.number))

    def select(self, step: Step, predicate: Value, false: Value, true: Value) -> Value:
        """Return `where(predicate, true, false)`, its two outcomes kept apart."""
        if predicate.constant is not None:
            return true if predicate.constant else false
        leaf, number = self.collapse(predicate.tree), predicate.number
        if number in self.numbers.negated:
            number, true, false = self.numbers.negated[number], false, true
            step.site.constants = (None, *step.site.constants[:0:-1])
        if isinstance(true.tree, Leaf) and isinstance(false.tree, Leaf):
            step.site.outcomes = (true.tree.degree, false.tree.degree)
        true_tree = cases.restrict(true.tree, number, True)
        false_tree = cases.restrict(false.tree, number, False)
        tree = cases.branch(number, leaf.needs, true_tree, false_tree, step.site)
        numbers = [number, true.number, false.number]
        return Value(self._bounded(tree), self.numbers.elementwise("select", (), numbers))


def _key(step: Step) -> tuple:
    return tuple(sorted(step.params.items(), key=lambda item: item[0]))


def _is_real(aval: Any) -> bool:
    """Tell whether a tensor's arithmetic is that of real numbers, or of predicates."""
    return aval.dtype == jnp.bool_ or jnp.issubdtype(aval.dtype, jnp.floating)
