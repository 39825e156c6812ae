"""Rules for loops and branches: a carried tensor has one degree in every iteration."""

from __future__ import annotations

from collections.abc import Callable

from sibert_jax.homogeneity.cases import Leaf
from sibert_jax.homogeneity.degree import ANY
from sibert_jax.homogeneity.registry import higher_order

MAX_UNROLLED = 64  # a longer scan whose carry changes its degree is required to keep it


class _Loop:
    """The search for the degrees of a loop's carry, from those before the first iteration."""

    def __init__(self, step, initial, body: Callable):
        self.step = step
        self.interpreter = step.interpreter
        self.body = body  # carry -> (next carry, outputs), all tensors
        self.outside = initial
        self.initial = [self.interpreter.collapse(value.tree) for value in initial]
        self.results: list = []  # of the last pass through the body
        self.equation_mark = len(self.interpreter.equations)
        self.row_mark = len(self.interpreter.rows)

    def forget(self):
        """Drop what an abandoned pass recorded; none of its tensors is in use any more."""
        del self.interpreter.equations[self.equation_mark :]
        del self.interpreter.rows[self.row_mark :]
        self.interpreter.always &= (1 << self.equation_mark) - 1

    def run(self, carry: list[Leaf]):
        """Run the body once; return the leaves of the next carry and of the outputs."""
        interpreter = self.interpreter
        inside = map(interpreter.stand_in, self.outside, carry)
        after, outputs = self.body(list(inside))
        self.results = [*after, *outputs]
        leaves = [interpreter.collapse(value.tree) for value in self.results]
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
            self.forget()
            carry = settled

    def fixed_point(self, carry, after, outputs):
        """Require that an iteration keeps every degree; all results depend on the whole carry."""
        needs = 0
        for leaf in [*self.initial, *after]:
            needs |= leaf.needs
        for before, new in zip(carry, after, strict=True):
            needs |= self.interpreter.equal(self.step.site, (before.degree, new.degree))[1]
        return (
            [Leaf(leaf.degree, needs) for leaf in carry],
            [Leaf(leaf.degree, leaf.needs | needs) for leaf in outputs],
        )

    def unrolled(self, length: int):
        """Follow every iteration: exact where a layer raises the degree, as in x ← relu(Wx)."""
        self.forget()
        carry, stacked = self.initial, None
        for iteration in range(length):
            rows = len(self.interpreter.rows)
            carry, outputs = self.run(carry)
            if iteration:
                del self.interpreter.rows[rows:]
            stacked = outputs if stacked is None else self._joined(stacked, outputs)
        return carry, stacked

    def _joined(self, stacked, outputs):
        joined = []
        for old, new in zip(stacked, outputs, strict=True):
            degree, needs = self.interpreter.equal(self.step.site, (old.degree, new.degree))
            joined.append(Leaf(degree, needs | old.needs | new.needs))
        return joined


@higher_order("scan")
def scan(step, *operands):
    """Carry degrees must be a fixed point; slices of xs and stacked ys have those of the whole."""
    interpreter, params = step.interpreter, step.params
    if "num_consts" in params:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    else:  # JAX 0.12.0.1 and later
        num_consts, num_carry, _ = map(len, params["ft_in"].unpack())
    consts = operands[:num_consts]
    xs = operands[num_consts + num_carry :]
    calls = (*step.site.calls, step.eqn)

    def body(carry):
        slices = [interpreter.stand_in(value) for value in xs]
        results = interpreter.run_closed(params["jaxpr"], [*consts, *carry, *slices], calls)
        return results[:num_carry], results[num_carry:]

    loop = _Loop(step, operands[num_consts : num_consts + num_carry], body)
    carry, after, outputs = loop.from_zeros()
    moved = any(
        None not in (old.degree, new.degree) and old.degree != new.degree
        for old, new in zip(carry, after, strict=True)
    )
    if moved and 0 < params["length"] <= MAX_UNROLLED:
        carry, outputs = loop.unrolled(params["length"])
    else:
        carry, outputs = loop.fixed_point(carry, after, outputs)
    values = list(map(interpreter.stand_in, loop.results, [*carry, *outputs]))
    interpreter.record(step, values, list(operands))
    return values


@higher_order("while")
def while_(step, *operands):
    """As scan, and the condition must not change, so that as many iterations run."""
    interpreter, params = step.interpreter, step.params
    cond_consts = operands[: params["cond_nconsts"]]
    rest = operands[params["cond_nconsts"] :]
    body_consts, initial = rest[: params["body_nconsts"]], rest[params["body_nconsts"] :]
    calls = (*step.site.calls, step.eqn)

    def body(carry):
        test = interpreter.run_closed(params["cond_jaxpr"], [*cond_consts, *carry], calls)
        return interpreter.run_closed(params["body_jaxpr"], [*body_consts, *carry], calls), test

    loop = _Loop(step, initial, body)
    carry, (test,) = loop.fixed_point(*loop.from_zeros())
    values = [
        interpreter.stand_in(value, Leaf(leaf.degree, leaf.needs | test.needs))
        for value, leaf in zip(loop.results, carry, strict=False)
    ]
    interpreter.record(step, values, list(operands))
    return values


@higher_order("cond")
def cond(step, index, *operands):
    """The branch taken must not change, and all branches give equal degrees."""
    interpreter = step.interpreter
    chosen = interpreter.collapse(index.tree)
    needs = chosen.needs | interpreter.zero(step.site, [chosen.degree])
    operands = [interpreter.whole(value) for value in operands]
    calls = (*step.site.calls, step.eqn)
    results = [
        interpreter.run_closed(branch, operands, calls) for branch in step.params["branches"]
    ]
    values = []
    for outcomes in zip(*results, strict=True):
        leaves = [interpreter.collapse(value.tree) for value in outcomes]
        degree, more = interpreter.equal(step.site, [leaf.degree for leaf in leaves])
        for leaf in leaves:
            more |= leaf.needs
        values.append(interpreter.stand_in(outcomes[-1], Leaf(degree, more | needs)))
    interpreter.record(step, values, [index, *operands])
    return values
