"""Rules for gather and scatter: indices are data and must not change."""

from __future__ import annotations

from jax.lax import GatherScatterMode

from sibert_jax.homogeneity import constants
from sibert_jax.homogeneity.degree import ZERO
from sibert_jax.homogeneity.registry import mixing


@mixing("gather")
def gather(step, operand, indices):
    """Elements of the operand; those out of bounds are clamped, or filled with NaN or a number."""
    step.zero(indices)
    fill = step.params["fill_value"]
    if fill is None or step.params["mode"] != GatherScatterMode.FILL_OR_DROP:
        return operand
    degree, entry = constants.degree_of(fill)
    step.site.constants = (step.constants[0], entry)
    return step.equal(operand, degree)


@mixing("scatter")
def scatter(step, operand, indices, updates):
    """Updates join the operand's elements, or `x.at[i].apply(f)` puts f(x) in their place."""
    if step.params["update_jaxpr"] is not None:
        step.zero(indices, operand)
        return ZERO
    return scatter_combined(step, operand, indices, updates)


@mixing("scatter-add", "scatter_add", "scatter-sub", "scatter_sub",
        "scatter-min", "scatter_min", "scatter-max", "scatter_max")  # fmt: skip
def scatter_combined(step, operand, indices, updates):
    """Updates are added to or compared with the operand's elements."""
    step.zero(indices)
    return step.equal(operand, updates)


@mixing("scatter-mul", "scatter_mul")
def scatter_mul(step, operand, indices, updates):
    """Only some elements are multiplied, so the factors must have degree 0."""
    step.zero(indices, updates)
    return operand
