"""The transform shared by all forms of PSGD: the criterion, its pairs (v, h), the state.

Notation: P = QᵀQ the preconditioner, v a random vector, h the vector to be whitened (a gradient) or
the Hessian-vector product Hv, μ the step size of the fit. PSGD minimizes

    c(P) = E[hᵀPh + vᵀP⁻¹v]

by multiplicative steps Q ← (I − μE/L)Q, where L bounds the curvature of the step, so that μ < 1
needs no tuning and Q stays invertible.

h is damped by a little noise. Without it Q would grow without bound in directions that never see a
gradient; with it P stays below 1/(damping · rms h).
"""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import floating_leaves
from sibert_jax.optim.psgd.pairs import DAMPING, Leaves, Mode, fit_dtype, saturated
from sibert_jax.optim.scalars import check_integer, check_scalar, value_at


class PsgdState(NamedTuple):
    """State of every PSGD transform.

    Attributes:
      count: int32, steps taken; the random vectors are a function of it and the seed.
      preconditioner: the arrays of Q, float32 (float64 for float64 leaves): a NamedTuple of trees
        in the structure of the parameters.
    """

    count: jax.Array
    preconditioner: Any


class Form(NamedTuple):
    """A family of Q, as pure functions.

    Outside `init`, every tree of Q is given as the list of its entries for the non-empty leaves
    present in the updates; `v` is None in whitening mode.

    Attributes:
      init: (params) -> Q near the identity, a NamedTuple of trees like the parameters.
      fit: (Q, v, h, μ, key) -> Q after one step of the fit.
      apply: (Q, g) -> P g.
      shared: the names of the fields of Q that are not such trees.
    """

    init: Callable[[optax.Params], Any]
    fit: Callable[[Any, Leaves | None, Leaves, jax.Array, jax.Array], Any]
    apply: Callable[[Any, Leaves], Leaves]
    shared: tuple[str, ...] = ()


def check_count(name: str, value: int) -> int | jax.Array:
    """Return the whole number ≥ 1, or raise ValueError; (injected) arrays pass unread."""
    return value if isinstance(value, jax.Array) else check_integer(name, value, minimum=1)


def _tuple_again(entry: Any) -> Any:
    """Restore a tuple that flax.nnx turned into a mapping by position in its optimizer state."""
    return tuple(entry[i] for i in range(len(entry))) if isinstance(entry, Mapping) else entry


def _is_none(node: Any) -> bool:
    return node is None


class _Aligned(NamedTuple):
    """The updates as a list, and the positions of those to process."""

    leaves: list[Any]
    treedef: Any
    present: list[int]

    def of(self, tree: Any, what: str) -> list[Any]:
        """Return the entries of `tree`, structured like the parameters, for the present leaves."""
        try:
            entries = self.treedef.flatten_up_to(tree)
        except ValueError as error:
            raise ValueError(
                f"PSGD: the updates have another tree structure than {what}; None may stand for "
                "any leaf of the updates."
            ) from error
        return [_tuple_again(entries[i]) for i in self.present]

    def back(self, new: list[Any], tree: Any) -> Any:
        """Return `tree` with new entries for the present leaves."""
        entries = self.treedef.flatten_up_to(tree)
        for i, entry in zip(self.present, new):
            entries[i] = entry
        return self.treedef.unflatten(entries)


def _aligned(updates: optax.Updates) -> _Aligned:
    floating_leaves(updates)
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    present = [i for i, x in enumerate(leaves) if x is not None and jnp.size(x)]
    return _Aligned(leaves, treedef, present)


def scale_by_psgd(
    form: Form,
    preconditioner_learning_rate: optax.ScalarOrSchedule,
    mode: Mode,
    update_every: int,
    seed: int,
) -> optax.GradientTransformationExtraArgs:
    """Build the transform of a form; see the public functions for its arguments."""
    check_scalar(
        "preconditioner_learning_rate", preconditioner_learning_rate, strict=True, below=1.0
    )
    update_every = check_count("update_every", update_every)
    if mode not in DAMPING:
        raise ValueError(f"mode must be 'whitening' or 'newton', found {mode!r}.")

    def init_fn(params):
        floating_leaves(params)
        return PsgdState(jnp.zeros([], jnp.int32), form.init(params))

    def pair(aligned: _Aligned, gradients: Leaves, extra_args) -> tuple[Leaves | None, Leaves]:
        if mode == "whitening":
            return None, gradients
        trees = []
        for name in ("vector", "hvp"):
            if extra_args.get(name) is None:
                raise ValueError(
                    f"PSGD in newton mode needs `{name}`: call update(grads, state, params, "
                    "vector=v, hvp=Hv), see sibert_jax.optim.gradient_and_hvp."
                )
            leaves = aligned.of(extra_args[name], f"`{name}`")
            for leaf, g in zip(leaves, gradients):
                if jnp.shape(leaf) != g.shape:
                    raise ValueError(
                        f"PSGD: a leaf of `{name}` has shape {jnp.shape(leaf)}, its gradient "
                        f"{g.shape}; give both the structure and the shapes of the gradient."
                    )
            trees.append([leaf.astype(g.dtype) for leaf, g in zip(leaves, gradients)])
        return trees[0], trees[1]

    def update_fn(updates, state, params=None, **extra_args):
        del params
        aligned = _aligned(updates)
        count = optax.safe_increment(state.count)
        if not aligned.present:
            return updates, PsgdState(count, state.preconditioner)
        originals = [aligned.leaves[i] for i in aligned.present]
        gradients = [jnp.asarray(g).astype(fit_dtype(g)) for g in originals]
        v, h = pair(aligned, gradients, extra_args)
        mu = value_at(preconditioner_learning_rate, state.count).astype(jnp.float32)
        key = jax.random.fold_in(jax.random.key(seed), state.count)
        trees = [name for name in state.preconditioner._fields if name not in form.shared]
        q = state.preconditioner._replace(
            **{k: aligned.of(getattr(state.preconditioner, k), "the parameters") for k in trees}
        )
        if isinstance(update_every, Integral) and update_every == 1:
            q = form.fit(q, v, h, mu, key)
        else:
            due = state.count % jnp.asarray(update_every).astype(jnp.int32) == 0
            q = jax.lax.cond(due, lambda q: form.fit(q, v, h, mu, key), lambda q: q, q)
        outs = [
            out if out.dtype == g.dtype else saturated(out, g)
            for out, g in zip(form.apply(q, gradients), originals)
        ]
        preconditioner = q._replace(
            **{k: aligned.back(getattr(q, k), getattr(state.preconditioner, k)) for k in trees}
        )
        return aligned.back(outs, updates), PsgdState(count, preconditioner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def gradient_and_hvp(
    loss: Callable[[optax.Params], jax.Array], params: optax.Params, key: jax.Array
) -> tuple[optax.Updates, optax.Updates, optax.Updates]:
    """Return (g, v, Hv) at `params`, for PSGD in newton mode.

    One forward-over-reverse pass: about twice the cost of a gradient.

    Args:
      loss: a function from the parameters alone (close over the batch) to a scalar.
      params: x, with floating-point leaves.
      key: random key of v ~ N(0, I).

    Returns:
      The gradient, v, and the Hessian at x times v, each with the structure of x.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sibert_jax.optim import gradient_and_hvp
      >>> loss = lambda x: 0.5 * (1.0 * x[0] ** 2 + 4.0 * x[1] ** 2)
      >>> g, v, hv = gradient_and_hvp(loss, jnp.ones(2), jax.random.key(0))
      >>> print(g, hv / v)
      [1. 4.] [1. 4.]

    References:
      Pearlmutter, *Fast Exact Multiplication by the Hessian*, Neural Computation 6(1), 1994.
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    v = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
    vector = jax.tree.unflatten(treedef, v)
    gradient, hvp = jax.jvp(jax.grad(loss), (params,), (vector,))
    return gradient, vector, hvp
