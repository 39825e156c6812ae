"""Rules for reductions, scans along an axis, windows and sorting."""

from __future__ import annotations

import math

from jax.extend import core

from sibert_jax.homogeneity.degree import ZERO
from sibert_jax.homogeneity.registry import higher_order, mixing


@mixing(
    "reduce_sum", "reduce_max", "reduce_min", "cumsum", "cummax", "cummin",
    "reduce_window_sum", "reduce_window_max", "reduce_window_min",
)  # fmt: skip
def positively_homogeneous(step, x, *_):
    """Sums, maxima and minima of elements of one degree have that degree."""
    return x


@mixing("reduce_prod")
def reduce_prod(step, x):
    """A product of n elements has n times their degree."""
    shape = step.eqn.invars[0].aval.shape
    return step.power(x, math.prod(shape[axis] for axis in step.params["axes"]))


@mixing("cumprod", "cumlogsumexp", "reduce_and", "reduce_or", "reduce_xor")
def degree_zero(step, x):
    """Element k of a cumulative product has degree k·d: one degree for all only if d is 0."""
    return step.zero(x)


@mixing("argmax", "argmin")
def argmax(step, x):
    """The place of the largest element does not move when all are scaled."""
    return ZERO


@mixing("sort")
def sort(step, *operands):
    """Scaling keeps the order, so each operand is permuted as before."""
    return tuple(operands)


@mixing("top_k", "approx_top_k")
def top_k(step, x):
    """Values keep their degree, places do not move."""
    return x, ZERO


@mixing("select_and_scatter_add", "select_and_gather_add")
def window_selection(step, source, operand):
    """The gradient of max pooling: `operand` only decides where `source` goes."""
    return source


def _monoid(step, operands, body):
    """Require that the reducing function keeps the degrees of the values that it combines."""
    interpreter = step.interpreter
    half = len(operands) // 2
    leaves = [interpreter.collapse(value.tree) for value in operands]
    outside = 0
    for leaf in leaves:
        outside |= leaf.needs

    def joined(left, right):
        pairs = [
            interpreter.equal(step.site, (a, b.degree)) for a, b in zip(left, right, strict=True)
        ]
        needs = 0
        for leaf, (_, more) in zip(right, pairs, strict=True):
            needs |= leaf.needs | more
        return [degree for degree, _ in pairs], needs

    degrees, initial_needs = joined([leaf.degree for leaf in leaves[:half]], leaves[half:])
    calls = (*step.site.calls, step.eqn)
    while True:  # until what began as zeros has the degree of what it is combined with
        arguments = [interpreter.value(degree) for degree in degrees * 2]
        if isinstance(body, core.ClosedJaxpr):
            results = interpreter.run_closed(body, arguments, calls)
        else:
            results = interpreter.run(body, [], arguments, calls)
        settled, needs = joined(degrees, [interpreter.collapse(value.tree) for value in results])
        if settled == degrees:
            return [interpreter.value(d, outside | initial_needs | needs) for d in degrees]
        degrees = settled


@higher_order("reduce", "reduce_window")
def reduce(step, *operands):
    """A reduction by a function that is given as a jaxpr."""
    outputs = _monoid(step, operands, step.params["jaxpr"])
    step.interpreter.record(step, outputs, list(operands))
    return outputs
