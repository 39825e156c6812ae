"""Explain the equation that breaks an invariance: operation, line and fix."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from fractions import Fraction

from sibert_jax.homogeneity import source
from sibert_jax.homogeneity.rules import Equation

_CONSTANT = (
    "an added constant does not scale: make it relative, e.g. `var + eps * mean(x**2)`, or guard "
    "with `where(z > 0, x / where(z > 0, z, 1), 0)`"
)
_OF_LIBRARY = (
    "`{function}` brings in the constant itself: set it to 0 where it is an argument, as `epsilon` "
    "or `atol`, or normalize the input to degree 0"
)
_COMPARED = (
    "compare tensors of one degree: normalize the input to degree 0, or make the threshold "
    "relative, e.g. `x > t * max(abs(x))`"
)
_ROUNDED = (
    "an exponent that its dtype rounds, as bfloat16 does 1/3, does not cancel: take this root in "
    "float32, or with `sqrt` or `cbrt`"
)
_SMOOTH = (
    "normalize its input to degree 0 (a LayerNorm without gain before it), or use a positively "
    "homogeneous function such as ReLU"
)
_GUARD = (
    "the guard's constant stays in the result: discard the result where the guard acts, e.g. "
    "`where(z > 0, x / where(z > 0, z, 1), 0)`"
)
_UNEQUAL = (
    "add a bias only where its degree matches, and normalize one side so that both have the same "
    "degree"
)
_REPAIRS = {
    "dot_general": _UNEQUAL,
    "pow": "raise to a known number, or to a power of degree 0 with a base of degree 0",
    "concatenate": "bring the parts to one degree, e.g. normalize each, before they are joined",
    "gather": "fill with 0, NaN or infinity, which fit any degree",
    "scan": "let one iteration keep the degree of what it carries, e.g. normalize each layer",
    "while": "let one iteration keep the degree of what it carries",
    "cond": "let all branches return tensors of one degree",
    "lu": "normalize the matrix, or use `solve`, `qr` or `svd`, whose degrees are known",
}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "eq_to", "lt_to", "le_to"}
_UNKNOWN = "declare its degrees with `sibert_jax.homogeneity.degree_rule` or `kernel_degree_rule`"
_OUTPUT = "normalize the result, e.g. end the network in a LayerNorm without gain and bias"


@dataclasses.dataclass(frozen=True)
class Obstruction:
    """The first requirement that a scaling breaks.

    Attributes:
        primitive: the JAX primitive, e.g. "add"; "output" if an output itself is scaled.
        degrees: the degrees of its operands under this scaling; None for 0, ±inf and NaN, which fit
            any.
        constants: per operand, the value that all its entries share, or None.
        location: the line of user code, or None.
        library_location: the line in the layer library called from there, or None.
        module: the path of the module, or "".
        equation: the requirement as a linear form in the leaves' exponents, = 0.
        repair: advice on how to remove the obstruction.
        subject: the name of the scaled leaves, e.g. their common path.
    """

    primitive: str
    degrees: tuple[Fraction | None, ...]
    constants: tuple[complex | None, ...]
    location: source.Location | None
    library_location: source.Location | None
    module: str
    equation: str
    repair: str
    subject: str

    def __str__(self) -> str:
        where = f"{self.location}" if self.location else "the function itself"
        if self.library_location:
            where += f" (in {self.library_location})"
        if self.module:
            where += f", module {self.module}"
        return f"{where}: {self.operands}; to repair: {self.repair}"

    @property
    def operands(self) -> str:
        """The operation in words: "add of degree 2 in encoder and degree 0 (constant 1e-6)"."""
        operands = " and ".join(
            _operand(degree, constant, self.subject)
            for degree, constant in zip(self.degrees, self.constants, strict=True)
        )
        return f"{self.primitive} of {operands}"

    @property
    def place(self) -> str:
        """The file name and line, e.g. "norm.py:28"."""
        if self.location is None:
            return "the function itself"
        return f"{os.path.basename(self.location.file)}:{self.location.line}"


def _operand(degree: Fraction | None, constant: complex | None, subject: str) -> str:
    if degree is None:
        return f"a tensor of any degree ({constant})" if constant is not None else "zeros"
    if constant is not None:
        return f"degree {degree} (constant {constant:.6g})"
    return f"degree {degree} in {subject}" if degree else "degree 0"


def explain(
    equation: Equation, exponents: Mapping[int, Fraction], names: list[str], subject: str
) -> Obstruction:
    """Explain an equation that these exponents violate."""
    site, operands, constants = equation.site, equation.operands, ()
    primitive = "output" if site is None else site.eqn.primitive.name
    if site is not None and len(site.constants) == len(operands):
        constants = site.constants
    if site is not None and _at(site.outcomes, exponents) not in ((), (0, 0)):
        operands, constants = site.outcomes, site.constants[:0:-1]  # as (true, false)
    degrees = _at(operands, exponents)
    constants = constants or (None,) * len(degrees)
    user, inner = source.locate(site)
    return Obstruction(
        primitive=primitive,
        degrees=degrees,
        constants=constants,
        location=user,
        library_location=inner,
        module=source.module_path(site),
        equation=f"{equation.form.named(names)} = 0",
        repair=_repair(equation, primitive, degrees, constants),
        subject=subject,
    )


def _at(operands: tuple, exponents: Mapping[int, Fraction]) -> tuple[Fraction | None, ...]:
    return tuple(None if degree is None else degree.at(exponents) for degree in operands)


def _is_rounding(degrees: tuple) -> bool:
    """Tell whether the degrees differ so little that only a rounded exponent explains it."""
    found = [degree for degree in degrees if degree is not None]
    differences = [abs(degree - found[0]) for degree in found[1:]] or [abs(d) for d in found]
    largest = max(differences, default=0)
    return 0 < largest < Fraction(1, 64) and largest.denominator % 128 == 0


def _repair(equation: Equation, primitive: str, degrees: tuple, constants: tuple) -> str:
    if _is_rounding(degrees):
        return _ROUNDED
    if equation.kind == "output":
        return _OUTPUT
    if equation.kind == "unknown":
        return _UNKNOWN
    if primitive in _REPAIRS:
        return _REPAIRS[primitive]
    if equation.kind == "zero":
        return _SMOOTH
    library_function = source.caller_in_jax(equation.site)
    added = any(c is not None and d == 0 for c, d in zip(constants, degrees, strict=True))
    if primitive == "select_n":
        return _GUARD if added else _REPAIRS["cond"]
    if primitive in _COMPARISONS and not (added and library_function):
        return _COMPARED
    if added and library_function not in (None, "clip"):
        return _OF_LIBRARY.format(function=library_function)
    return _CONSTANT if added else _UNEQUAL
