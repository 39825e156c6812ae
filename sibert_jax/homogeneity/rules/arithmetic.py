"""Rules for elementwise functions: the degree algebra itself.

Scaling is by c > 0 only, so signs, absolute values and comparisons are safe. An operand of 0, ±inf
and NaN (degree None) fits any degree.
"""

from __future__ import annotations

from fractions import Fraction

import jax.numpy as jnp
import numpy as np

from sibert_jax.homogeneity.degree import ANY, ZERO
from sibert_jax.homogeneity.rules import elementwise, higher_order


@elementwise("add", "sub", "add_any", "max", "min", "clamp", "complex")
def equal_degrees(step, *degrees):
    """cᵈx + cᵈy = cᵈ(x + y); max, min and clamp select one of them."""
    return step.equal(*degrees)


@elementwise("mul")
def mul(step, x, y):
    """cᵈx · cᵉy = cᵈ⁺ᵉxy."""
    return step.product(x, y)


@elementwise("div")
def div(step, x, y):
    """cᵈx / cᵉy = cᵈ⁻ᵉx/y; an integer divided by 0 is -1, which has degree 0."""
    if ANY in (x, y):
        return ANY if step.is_inexact() else ZERO
    return x - y


@elementwise("rem")
def rem(step, x, y):
    """The remainder of cᵈx by cᵈy is cᵈ times that of x by y."""
    degree = step.equal(x, y)
    return ZERO if degree is ANY and not step.is_inexact() else degree


@elementwise("neg", "abs", "real", "imag", "conj", "reduce_precision")
def same_degree(step, x):
    """Linear in the operand, or positively homogeneous of degree 1."""
    return x


@elementwise("sqrt")
def sqrt(step, x):
    """√(cᵈx) = c^{d/2}√x."""
    return step.power(x, Fraction(1, 2))


@elementwise("rsqrt")
def rsqrt(step, x):
    """1/√(cᵈx) = c^{-d/2}/√x."""
    return step.power(x, Fraction(-1, 2))


@elementwise("cbrt")
def cbrt(step, x):
    """∛(cᵈx) = c^{d/3}∛x."""
    return step.power(x, Fraction(1, 3))


@elementwise("square")
def square(step, x):
    """(cᵈx)² = c²ᵈx²."""
    return step.power(x, 2)


@elementwise("integer_pow")
def integer_pow(step, x):
    """(cᵈx)ⁿ = cⁿᵈxⁿ."""
    return step.power(x, step.params["y"])


def _rational_exponent(exponent: float, dtype) -> Fraction:
    """Return the fraction that an exponent of this dtype stands for.

    In float32 and float64 that is the simple fraction that rounds to it, e.g. 1/3 for 0.33333334:
    the difference is within the rounding of the result. In bfloat16 and float16 it is the number
    itself, e.g. 171/512 for 0.333984375: a root that should cancel a cube misses it by 3 % at
    c = 2²⁰.
    """
    simple = Fraction(exponent).limit_denominator(1000)
    rounds = jnp.finfo(dtype).bits >= 32 and np.asarray(float(simple)).astype(dtype) == exponent
    return simple if rounds else Fraction(exponent)


@elementwise("pow")
def pow_(step, x, y):
    """(cᵈx)ʸ = c^{dy}xʸ for one known exponent y; otherwise nothing may scale."""
    exponent = step.constants[1]
    if (
        not isinstance(exponent, int | float)
        or exponent != exponent
        or abs(exponent) == float("inf")
    ):
        return step.zero(x, y)
    if not jnp.issubdtype(step.eqn.invars[1].aval.dtype, jnp.inexact):
        return step.power(x, int(exponent))
    return step.power(x, _rational_exponent(exponent, step.eqn.invars[1].aval.dtype))


@elementwise("eq", "ne", "lt", "le", "gt", "ge", "atan2", "eq_to", "lt_to", "le_to")
def comparison(step, x, y):
    """Scaling both sides by the same positive factor changes neither order nor angle."""
    step.equal(x, y)
    return ZERO


@elementwise("sign", "is_finite")
def sign(step, x):
    """A positive factor changes no sign."""
    return ZERO


@elementwise("convert_element_type")
def convert_element_type(step, x):
    """Floats stay; a cast to integers rounds, so nothing may scale; a cast to bool tests x ≠ 0."""
    new_dtype = step.params["new_dtype"]
    if jnp.issubdtype(new_dtype, jnp.inexact) or not step.operand_is_inexact():
        return x
    return ZERO if new_dtype == jnp.bool_ else step.zero(x)


@elementwise("log")
def log(step, x):
    """log(cᵈx) = log x + d·log c is not a multiple of log x; log 0 and log inf are infinite."""
    return ANY if x is ANY else step.zero(x)


# Functions that are not homogeneous: all that is known is that unchanged operands give unchanged
# results.


@elementwise(
    "exp", "exp2", "expm1", "log1p", "logistic", "tanh", "tan", "sin", "cos", "sinh", "cosh",
    "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "erf_inv", "lgamma",
    "digamma", "polygamma", "igamma", "igammac", "igamma_grad_a", "zeta", "bessel_i0e",
    "bessel_i1e", "regularized_incomplete_beta", "random_gamma_grad",
)  # fmt: skip
def transcendental(step, *degrees):
    """f(x) is unchanged if x is; nothing is known for a scaled x."""
    return step.zero(*degrees)


@elementwise("floor", "ceil", "round", "bitcast_convert_type", "nextafter")
def rounding(step, *degrees):
    """The grid of whole or representable numbers does not scale."""
    return step.zero(*degrees)


@elementwise(
    "and", "or", "not", "xor", "shift_left", "shift_right_logical", "shift_right_arithmetic",
    "population_count", "clz", "mulhi",
)  # fmt: skip
def bitwise(step, *degrees):
    """Predicates and integers are data: they must not change."""
    return step.zero(*degrees)


@higher_order("select_n")
def select_n(interpreter, step, which, *branches):
    """Keep two outcomes separate; merge if there are more, or if one scalar predicate selects."""
    predicate, output = step.eqn.invars[0].aval, step.eqn.outvars[0].aval
    aligned = predicate.shape == output.shape or which.constant is not None
    if len(branches) == 2 and predicate.dtype == jnp.bool_ and aligned:
        outputs = [interpreter.select(step, which, *branches)]
    else:
        outputs = interpreter.mixed_outputs(
            step, lambda step, which, *cases: step.equal(*cases), [which, *branches]
        )
    interpreter.record(step, outputs, [which, *branches])
    return outputs
