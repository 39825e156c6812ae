"""Rules for communication between devices: each shard has the degree of the whole."""

from __future__ import annotations

from sibert_jax.homogeneity.registry import higher_order, mixing


@higher_order(
    "psum", "psum2", "psum_invariant", "unreduced_psum", "pmax", "pmin", "ppermute", "all_gather",
    "all_gather_invariant", "all_gather_reduced", "all_to_all", "reduce_scatter",
    "unreduced_reduce_scatter", "preduced", "vary_unreduced_cast",
)  # fmt: skip
def collective(step, *operands):
    """Sums, maxima and copies over devices: each output has the degree of its operand."""
    interpreter = step.interpreter
    leaves = [interpreter.collapse(value.tree) for value in operands]
    outputs = [interpreter.value(leaf.degree, leaf.needs) for leaf in leaves]
    interpreter.record(step, outputs, list(operands))
    return outputs


@mixing("ragged_all_to_all")
def ragged_all_to_all(step, operand, output, *sizes):
    """The received parts are written into `output`."""
    step.zero(*sizes)
    return step.equal(operand, output)
