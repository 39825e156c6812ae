"""Rules for functions inside functions: calls are entered, kernels are declared."""

from __future__ import annotations

import functools

import jax
from jax.extend import core

from sibert_jax.homogeneity import source
from sibert_jax.homogeneity.degree import ZERO
from sibert_jax.homogeneity.registry import KERNEL_RULES, higher_order

_BODY = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")


# Functions of JAX whose code hides a degree that is certain: they read the bits of a sign, or put
# the largest number where there was an infinity. By name and number of operands.
_LIBRARY_RULES = {
    ("signbit", 1): lambda step, x: ZERO,
    ("copysign", 2): lambda step, x, sign: x,
    ("nan_to_num", 1): lambda step, x: x,
}


@higher_order(
    "jit", "pjit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint", "remat_opt",
    "custom_jvp_call", "custom_vjp_call", "custom_vmap_call", "custom_partitioning", "composite",
    "compute_on", "core_closed_call", "custom_vjp_call_jaxpr", "custom_jvp_call_jaxpr",
)  # fmt: skip
def call(step, *operands):
    """Enter the called function; a custom derivative rule does not change the value."""
    library_rule = _LIBRARY_RULES.get((source.library_function(step.eqn), len(operands)))
    if library_rule is not None:
        outputs = step.interpreter.mixed_outputs(step, library_rule, list(operands))
        step.interpreter.record(step, outputs, list(operands))
        return outputs
    body = next(step.params[name] for name in _BODY if name in step.params)
    calls = (*step.site.calls, step.eqn)
    if isinstance(body, core.ClosedJaxpr):
        return step.interpreter.run_closed(body, list(operands), calls)
    return step.interpreter.run(body, [], list(operands), calls)


@higher_order("call_hi_primitive")
def call_hi_primitive(step, *operands):
    """Enter what the primitive stands for (JAX 0.12.0.1 and later, as in `searchsorted`)."""
    return _enter(step, step.params["_prim"].expand, operands)


@higher_order("polynomial")
def polynomial(step, *operands):
    """Enter Horner's rule: of the variable, then the coefficients, the leading one last."""
    return _enter(
        step, lambda x, *c: functools.reduce(lambda total, c: total * x + c, c[::-1]), operands
    )


def _enter(step, function, operands):
    body = jax.make_jaxpr(function)(*(var.aval for var in step.eqn.invars))
    return step.interpreter.run_closed(body, list(operands), (*step.site.calls, step.eqn))


@higher_order("shard_map")
def shard_map(step, *operands):
    """Enter the function on shards; a shard has the degree of the whole, and is another tensor."""
    interpreter = step.interpreter
    calls = (*step.site.calls, step.eqn)
    inside = [interpreter.stand_in(value) for value in operands]
    results = interpreter.run(step.params["jaxpr"], [], inside, calls)
    return [interpreter.stand_in(value) for value in results]


@higher_order("pallas_call")
def pallas_call(step, *operands):
    """Apply the degrees declared for the kernel; without them, nothing may scale."""
    interpreter = step.interpreter
    rule = KERNEL_RULES.get(kernel_name(step.eqn))
    if rule is None:
        outputs = interpreter.unknown_outputs(step, list(operands))
    else:
        outputs = interpreter.mixed_outputs(step, rule, list(operands))
    interpreter.record(step, outputs, list(operands))
    return outputs


def kernel_name(eqn) -> str:
    """Return the name of a `pallas_call`: its `name`, or that of the kernel function."""
    params = eqn.params
    info = params["name_and_src_info"] if "name_and_src_info" in params else params["name"]
    return getattr(info, "name", info)
