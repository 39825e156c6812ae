"""Rules for primitives that call functions: calls, kernels, loops, branches, solvers, reducers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax

from sibert_jax.homogeneity.degree import ANY, ZERO, Leaf, all_needs
from sibert_jax.homogeneity.rules import KERNEL_RULES, higher_order
from sibert_jax.homogeneity.source import library_function

MAX_UNROLLED = 64  # iterations; the carry of a longer scan must keep its degree

_BODY = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")

# JAX functions whose code hides a known degree: they read the bits of a sign, or replace infinities
# by the largest number. By name and number of operands.
_LIBRARY_RULES = {
    ("signbit", 1): lambda step, x: ZERO,
    ("copysign", 2): lambda step, x, sign: x,
    ("nan_to_num", 1): lambda step, x: x,
}

# Calls are entered, kernels are declared.


@higher_order(
    "jit", "pjit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint", "remat_opt",
    "custom_jvp_call", "custom_vjp_call", "custom_vmap_call", "custom_partitioning", "composite",
    "compute_on", "core_closed_call", "custom_vjp_call_jaxpr", "custom_jvp_call_jaxpr",
)  # fmt: skip
def call(interpreter, step, *operands):
    """Enter the called function; a custom derivative rule does not change the value."""
    library_rule = _LIBRARY_RULES.get((library_function(step.eqn), len(operands)))
    if library_rule is not None:
        outputs = interpreter.mixed_outputs(step, library_rule, operands)
        interpreter.record(step, outputs, operands)
        return outputs
    body = next(step.params[name] for name in _BODY if name in step.params)
    return interpreter.run(body, operands, step.site.stack)


@higher_order("call_hi_primitive")
def call_hi_primitive(interpreter, step, *operands):
    """Enter the primitive's expansion (JAX 0.12.0.1 and later, as in `searchsorted`)."""
    return _enter(interpreter, step, step.params["_prim"].expand, operands)


@higher_order("polynomial")
def polynomial(interpreter, step, *operands):
    """Enter Horner's rule; operands: the variable, then the coefficients, the leading one last."""

    def horner(x, *coefficients):
        return functools.reduce(lambda total, c: total * x + c, coefficients[::-1])

    return _enter(interpreter, step, horner, operands)


def _enter(interpreter, step, function, operands):
    body = jax.make_jaxpr(function)(*(var.aval for var in step.eqn.invars))
    return interpreter.run(body, operands, step.site.stack)


@higher_order("shard_map")
def shard_map(interpreter, step, *operands):
    """Enter the function on shards; a shard has the degree of the whole but a different number."""
    inside = [interpreter.renumbered(value) for value in operands]
    results = interpreter.run(step.params["jaxpr"], inside, step.site.stack)
    return [interpreter.renumbered(value) for value in results]


@higher_order("pallas_call")
def pallas_call(interpreter, step, *operands):
    """Apply the degrees declared for the kernel; without them, nothing may scale."""
    rule = KERNEL_RULES.get(_kernel_name(step.params))
    if rule is None:
        outputs = interpreter.unknown_outputs(step, operands)
    else:
        outputs = interpreter.mixed_outputs(step, rule, operands)
    interpreter.record(step, outputs, operands)
    return outputs


def _kernel_name(params) -> str:
    """Return the name of a `pallas_call`: its `name`, or that of the kernel function."""
    info = params["name_and_src_info"] if "name_and_src_info" in params else params["name"]
    return getattr(info, "name", info)


# Loops: a carried tensor has one degree in every iteration.


class _Loop:
    """The search for the degrees of a loop's carry, starting from the initial ones.

    `body` maps the carry to (next carry, outputs).
    """

    def __init__(self, interpreter, step, initial, body: Callable):
        self.interpreter = interpreter
        self.site = step.site
        self.body = body
        self.outside = initial
        self.initial = interpreter.merged(initial)
        self.results: list = []  # of the last pass through the body
        self.mark = interpreter.mark()

    def run(self, carry: list[Leaf]):
        """Run the body once; return the leaves of the next carry and of the outputs."""
        inside = map(self.interpreter.renumbered, self.outside, carry)
        after, outputs = self.body(list(inside))
        self.results = [*after, *outputs]
        leaves = self.interpreter.merged(self.results)
        return leaves[: len(after)], leaves[len(after) :]

    def from_zeros(self):
        """Find the degree of each carry that starts as zeros, which fit any degree.

        Each pass settles at least one carry, so this ends.
        """
        carry = self.initial
        while True:
            after, outputs = self.run(carry)
            settled = [
                Leaf(new.degree, old.needs) if old.degree is ANY else old
                for old, new in zip(carry, after, strict=True)
            ]
            if [leaf.degree for leaf in settled] == [leaf.degree for leaf in carry]:
                return carry, after, outputs
            self.interpreter.rewind(self.mark)
            carry = settled

    def fixed_point(self, carry, after, outputs):
        """Require that an iteration keeps every degree; all results depend on the whole carry."""
        needs = all_needs([*self.initial, *after])
        for before, new in zip(carry, after, strict=True):
            needs |= self.interpreter.equations.equal(self.site, (before.degree, new.degree))[1]
        return (
            [Leaf(leaf.degree, needs) for leaf in carry],
            [Leaf(leaf.degree, leaf.needs | needs) for leaf in outputs],
        )

    def unrolled(self, length: int):
        """Follow every iteration: exact where the degree grows, as in x ← relu(Wx)."""
        self.interpreter.rewind(self.mark)
        carry, stacked = self.initial, None
        for iteration in range(length):
            num_rows = len(self.interpreter.rows)
            carry, outputs = self.run(carry)
            if iteration:
                del self.interpreter.rows[num_rows:]
            stacked = outputs if stacked is None else self._stacked(stacked, outputs)
        return carry, stacked

    def _stacked(self, earlier, outputs):
        stacked = []
        for old, new in zip(earlier, outputs, strict=True):
            degree, needs = self.interpreter.equations.equal(self.site, (old.degree, new.degree))
            stacked.append(Leaf(degree, needs | old.needs | new.needs))
        return stacked


@higher_order("scan")
def scan(interpreter, step, *operands):
    """Carry degrees must be a fixed point; slices of xs and ys have the degrees of the whole."""
    params = step.params
    if "num_consts" in params:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    else:  # JAX 0.12.0.1 and later
        num_consts, num_carry, _ = map(len, params["ft_in"].unpack())
    consts = operands[:num_consts]
    xs = operands[num_consts + num_carry :]

    def body(carry):
        slices = [interpreter.renumbered(value) for value in xs]
        arguments = [*consts, *carry, *slices]
        results = interpreter.run(params["jaxpr"], arguments, step.site.stack)
        return results[:num_carry], results[num_carry:]

    loop = _Loop(interpreter, step, operands[num_consts : num_consts + num_carry], body)
    carry, after, outputs = loop.from_zeros()
    is_changed = any(
        None not in (old.degree, new.degree) and old.degree != new.degree
        for old, new in zip(carry, after, strict=True)
    )
    if is_changed and 0 < params["length"] <= MAX_UNROLLED:
        carry, outputs = loop.unrolled(params["length"])
    else:
        carry, outputs = loop.fixed_point(carry, after, outputs)
    values = list(map(interpreter.renumbered, loop.results, [*carry, *outputs]))
    interpreter.record(step, values, operands)
    return values


@higher_order("while")
def while_(interpreter, step, *operands):
    """Like scan; the condition must not change either, so the number of iterations is the same."""
    params = step.params
    cond_consts = operands[: params["cond_nconsts"]]
    rest = operands[params["cond_nconsts"] :]
    body_consts, initial = rest[: params["body_nconsts"]], rest[params["body_nconsts"] :]

    def body(carry):
        test = interpreter.run(params["cond_jaxpr"], [*cond_consts, *carry], step.site.stack)
        after = interpreter.run(params["body_jaxpr"], [*body_consts, *carry], step.site.stack)
        return after, test

    loop = _Loop(interpreter, step, initial, body)
    carry, (test,) = loop.fixed_point(*loop.from_zeros())
    values = [
        interpreter.renumbered(value, Leaf(leaf.degree, leaf.needs | test.needs))
        for value, leaf in zip(loop.results, carry, strict=False)
    ]
    interpreter.record(step, values, operands)
    return values


@higher_order("cond")
def cond(interpreter, step, index, *operands):
    """The branch index must not change, and all branches must give equal degrees."""
    (chosen,) = interpreter.merged([index])
    needs = chosen.needs | interpreter.equations.zero(step.site, [chosen.degree])
    operands = [interpreter.with_one_degree(value) for value in operands]
    results = [
        interpreter.run(branch, operands, step.site.stack) for branch in step.params["branches"]
    ]
    values = []
    for outcomes in zip(*results, strict=True):
        leaves = interpreter.merged(outcomes)
        degree, more = interpreter.equations.equal(step.site, [leaf.degree for leaf in leaves])
        leaf = Leaf(degree, needs | more | all_needs(leaves))
        values.append(interpreter.renumbered(outcomes[-1], leaf))
    interpreter.record(step, values, [index, *operands])
    return values


# A reduction and a linear solve, by functions given as jaxprs


@higher_order("reduce", "reduce_window")
def reduce(interpreter, step, *operands):
    """Require that the reducing function preserves the degrees of the values that it combines."""
    half = len(operands) // 2
    leaves = interpreter.merged(operands)

    def joined(left, right):
        degrees, needs = [], all_needs(right)
        for a, b in zip(left, right, strict=True):
            degree, more = interpreter.equations.equal(step.site, (a, b.degree))
            degrees.append(degree)
            needs |= more
        return degrees, needs

    degrees, initial_needs = joined([leaf.degree for leaf in leaves[:half]], leaves[half:])
    initial_needs |= all_needs(leaves)
    while True:  # until initial zeros get the degree of the values they are combined with
        arguments = [interpreter.value(degree) for degree in degrees * 2]
        results = interpreter.run(step.params["jaxpr"], arguments, step.site.stack)
        settled, needs = joined(degrees, interpreter.merged(results))
        if settled == degrees:
            break
        degrees = settled
    outputs = [interpreter.value(degree, initial_needs | needs) for degree in degrees]
    interpreter.record(step, outputs, operands)
    return outputs


@higher_order("custom_linear_solve")
def custom_linear_solve(interpreter, step, *operands):
    """Solutions of matvec(x) = b have degree e, where matvec maps degree e to m + e, that of b.

    Auxiliary results of the solver (`has_aux`) require that nothing scales.
    """
    matvec, lengths = step.params["jaxprs"].matvec, step.params["const_lengths"]
    consts = [interpreter.with_one_degree(value) for value in operands[: lengths.matvec]]
    b = interpreter.merged(operands[sum(lengths) :])
    probes = [interpreter.value(ZERO) for _ in b]
    images = interpreter.merged(interpreter.run(matvec, [*consts, *probes], step.site.stack))
    # matvec is linear in x, which is scaled as one vector: all its parts share one degree.
    degree, needs = interpreter.equations.equal(
        step.site,
        [
            ANY if ANY in (image.degree, right.degree) else right.degree - image.degree
            for image, right in zip(images, b, strict=True)
        ],
    )
    needs |= all_needs([*images, *b])
    values = [interpreter.value(degree, needs) for _ in b]
    auxiliary = step.eqn.outvars[len(b) :]
    if auxiliary:
        leaves = interpreter.merged(operands)
        needs = interpreter.equations.zero(step.site, [leaf.degree for leaf in leaves])
        needs |= all_needs(leaves)
        values += [interpreter.value(ZERO, needs) for _ in auxiliary]
    interpreter.record(step, values, operands)
    return values
