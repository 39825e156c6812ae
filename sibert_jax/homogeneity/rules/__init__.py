"""The table of rules: for each JAX primitive, the degrees of its outputs given its operands'.

A rule is a function `rule(step, *degrees)` of a `Step` and one degree per operand (`None` for an
operand of only 0, ±inf and NaN, which fits any degree). It states the required equations with
`step.equal` and `step.zero`, and returns the degree of the output, or a tuple for several outputs.
The decorator that registers it says how the primitive treats elements:

* `elementwise`: an output element depends on the operands' elements at the same position;
* `movement`: output elements are elements of the first operand, moved or repeated;
* `mixing`: anything else;
* `higher_order`: the rule is `rule(interpreter, step, *values)` and returns the output values.
  Meant for primitives that contain jaxprs, or whose outputs need different equations.

The rules are in the modules of this package, which `analyse` imports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

import jax.numpy as jnp

from sibert_jax.homogeneity.degree import ANY, ZERO, Degree, Leaf, Tree
from sibert_jax.homogeneity.source import Site

ELEMENTWISE, MOVEMENT, MIXING, HIGHER_ORDER = "elementwise", "movement", "mixing", "higher_order"


@dataclasses.dataclass(slots=True, eq=False)
class Equation:
    """`form` = 0 must hold for the certificate; `operands` are the degrees that it relates.

    `kind` is "equal" (all operands of equal degree), "zero" (each operand of degree 0), "unknown"
    (likewise, for a primitive without a rule) or "output".
    """

    form: Degree
    kind: str
    operands: tuple[Degree | None, ...]
    site: Site | None


class Equations(list[Equation]):
    """The equations of one analysis, in program order; a set of them is an int, one bit each."""

    def equal(self, site: Site, degrees: Sequence[Degree | None]) -> tuple[Degree | None, int]:
        """Require equal degrees; return the common degree and the equations added."""
        first = next((degree for degree in degrees if degree is not ANY), ANY)
        needs = 0
        for degree in degrees:
            if degree is not ANY and degree is not first:
                needs |= self._require(degree - first, "equal", degrees, site)
        return first, needs

    def zero(self, site: Site, degrees: Sequence[Degree | None], kind: str = "zero") -> int:
        """Require degree 0 of every operand; return the equations added."""
        needs = 0
        for degree in degrees:
            if degree is not ANY:
                needs |= self._require(degree, kind, degrees, site)
        return needs

    def merge(self, tree: Tree) -> Leaf:
        """Merge a tensor's outcomes into one degree, requiring that they agree."""
        if isinstance(tree, Leaf):
            return tree
        true, false = self.merge(tree.true), self.merge(tree.false)
        degree, needs = self.equal(tree.site, (true.degree, false.degree))
        return Leaf(degree, needs | true.needs | false.needs | tree.predicate_needs)

    def _require(self, form: Degree, kind: str, operands: Sequence, site: Site) -> int:
        if not form:
            return 0
        self.append(Equation(form, kind, tuple(operands), site))
        return 1 << (len(self) - 1)


class Step:
    """One operation of the analyzed program, as seen by its rule.

    Attributes:
        eqn: the jaxpr equation; `params` holds the primitive's parameters.
        constants: per operand, the value that all its entries share, or None.
        site: the position in the program.
        needs: the equations stated so far, as bits.
    """

    def __init__(self, equations: Equations, site: Site):
        self.eqn = site.eqn
        self.params = site.eqn.params
        self.constants = site.constants
        self.site = site
        self.needs = 0
        self._equations = equations

    def equal(self, *degrees: Degree | None) -> Degree | None:
        """Require equal degrees and return them; ANY only if all are ANY."""
        degree, needs = self._equations.equal(self.site, degrees)
        self.needs |= needs
        return degree

    def zero(self, *degrees: Degree | None) -> Degree:
        """Require that every operand has degree 0, and return degree 0."""
        self.needs |= self._equations.zero(self.site, degrees)
        return ZERO

    def product(self, *degrees: Degree | None) -> Degree | None:
        """Return the degree of a product; ANY if a factor is ANY."""
        return ANY if ANY in degrees else sum(degrees, ZERO)

    def power(self, degree: Degree | None, exponent: Fraction | int) -> Degree | None:
        """Return the degree of a power; 0⁰ = 1 has degree 0."""
        if exponent == 0:
            return ZERO
        return ANY if degree is ANY else degree * exponent

    def is_inexact(self, output: int = 0) -> bool:
        """Tell whether the output is floating-point or complex."""
        return jnp.issubdtype(self.eqn.outvars[output].aval.dtype, jnp.inexact)

    def operand_is_inexact(self, index: int = 0) -> bool:
        """Tell whether operand `index` is floating-point or complex."""
        return jnp.issubdtype(self.eqn.invars[index].aval.dtype, jnp.inexact)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule and the way it treats elements."""

    function: Callable
    kind: str


RULES: dict[str, Rule] = {}
KERNEL_RULES: dict[str, Callable] = {}


def _registrar(kind: str) -> Callable[..., Callable]:
    def register(*names: str) -> Callable[[Callable], Callable]:
        def decorate(function: Callable) -> Callable:
            for name in names:
                RULES[name] = Rule(function, kind)
            return function

        return decorate

    return register


elementwise = _registrar(ELEMENTWISE)
movement = _registrar(MOVEMENT)
mixing = _registrar(MIXING)
higher_order = _registrar(HIGHER_ORDER)


def degree_rule(primitive_name: str) -> Callable[[Callable], Callable]:
    """Declare the degrees of a custom primitive's outputs.

    Args:
        primitive_name: the primitive's name, as printed in a jaxpr.

    Returns:
        A decorator for `rule(step, *degrees)`, which returns the degree of the output or a tuple of
        them. `step.equal(*degrees)` requires equal degrees and returns them, `step.zero(*degrees)`
        requires degree 0, and `step.params` holds the primitive's parameters. A degree is `None`
        for an operand of only 0, ±inf and NaN.

    Example:
        >>> @degree_rule("outer_product")
        ... def outer_product(step, x, y):
        ...     return step.product(x, y)
    """
    return mixing(primitive_name)


def kernel_degree_rule(kernel_name: str) -> Callable[[Callable], Callable]:
    """Declare the degrees of a Pallas kernel's outputs, by the `name` of its `pallas_call`.

    Args:
        kernel_name: the `name` argument of `pallas_call`, or the kernel function's name.

    Returns:
        A decorator for `rule(step, *degrees)`, as for `degree_rule`.

    Example:
        >>> @kernel_degree_rule("relu_attention_forward")
        ... def relu_attention_forward(step, q, k, v):
        ...     return v, step.product(q, k)  # the normalized output; the row sums
    """

    def decorate(function: Callable) -> Callable:
        KERNEL_RULES[kernel_name] = function
        return function

    return decorate
