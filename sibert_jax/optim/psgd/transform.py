"""What all forms of PSGD share: the criterion, where its pairs (v, h) come from, and the state.

Letters: P = QᵀQ the preconditioner, v a random vector, h the vector to be whitened (a gradient) or
the Hessian-vector product Hv, μ the step size of the fit. PSGD minimises

    c(P) = E[hᵀPh + vᵀP⁻¹v]

by multiplicative steps Q ← (I − μE/L)Q with L a bound on the curvature of the step, so that μ < 1
needs no tuning and Q stays regular.

h is damped by a little noise. Without it Q would grow without limit in directions that never see
a gradient; with it P stays below 1/(damping · rms h).
"""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import floating_leaves
from sibert_jax.optim.scalars import check_integer, check_scalar, value_at

Mode = Literal["whitening", "newton"]
Leaves = list[jax.Array]

# The noise in h, as a part of its rms. Hessian products are exact, so the noise is below rounding.
DAMPING: dict[Mode, float] = {"whitening": 1e-4, "newton": 1e-8}

# The largest rms of P h, against that of v: where it is larger, Q shrinks at once. The first
# gradient of a leaf, which sets its scale, may have been small by chance.
_LARGEST = 10.0


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

    Outside `init`, every tree of Q is the list of its entries for the leaves at hand, none of them
    empty; `v` is None in whitening mode.

    Attributes:
      init: (params) -> Q near the identity, a NamedTuple of trees like the parameters.
      fit: (Q, v, h, μ, key) -> Q after one step on the criterion.
      apply: (Q, g) -> P g.
      shared: the fields of Q that are no such trees.
    """

    init: Callable[[optax.Params], Any]
    fit: Callable[[Any, Leaves | None, Leaves, jax.Array, jax.Array], Any]
    apply: Callable[[Any, Leaves], Leaves]
    shared: tuple[str, ...] = ()


class Pair(NamedTuple):
    """A pair (v, h) of one tensor or of all leaves, freed from its scale.

    Attributes:
      v: of rms 1; None in whitening mode, where it is any standard normal.
      h: of largest entry 1, damped.
      size: what h lacks: the pair stands for (v, size·h).
      usable: whether the pair can teach anything: finite, v not zero, and h neither zero nor below
        1e-26 of v (1e-215 in float64), where the entries of P would overflow.
    """

    v: Leaves | None
    h: Leaves
    size: jax.Array
    usable: jax.Array


def fit_dtype(leaf: jax.Array) -> jnp.dtype:
    """Return the dtype of what is fitted to a leaf: float32, or the leaf's own if it is wider."""
    dtype = jnp.result_type(leaf)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def widest_dtype(leaves: Leaves) -> jnp.dtype:
    """Return the widest of the leaves' dtypes, at least float32: that of what they share."""
    return max([jnp.dtype(jnp.float32), *map(fit_dtype, leaves)], key=lambda dtype: dtype.itemsize)


def positive(x: jax.Array) -> jax.Array:
    """Return x, or 1 where x is 0: a divisor."""
    return jnp.where(x > 0, x, jnp.ones_like(x))


def largest_entry(leaves: Leaves) -> jax.Array:
    """Return max |x| over all entries of all leaves, in the widest of their dtypes."""
    dtype = widest_dtype(leaves)
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(dtype) for x in leaves]))


def root_mean_square(leaves: Leaves) -> jax.Array:
    """Return √mean x² over all entries of all leaves, whatever their scale."""
    largest = largest_entry(leaves)
    divisor = positive(largest)
    squares = [
        jnp.sum(jnp.square(x / divisor.astype(x.dtype))).astype(largest.dtype) for x in leaves
    ]
    return largest * jnp.sqrt(sum(squares) / sum(x.size for x in leaves))


def scale_free(v: Leaves | None, h: Leaves, noise: Leaves, mode: Mode) -> Pair:
    """Return the pair without its scale, so that no square over- or underflows."""
    size = largest_entry(h)
    unit = [x / positive(size).astype(x.dtype) for x in h]
    h = [x + DAMPING[mode] * root_mean_square([x]) * n for x, n in zip(unit, noise)]
    limits = jnp.finfo(size.dtype)
    smallest = float(limits.tiny) ** 0.7
    if v is None:
        return Pair(None, h, size, (size > smallest) & jnp.isfinite(size))
    v_size = root_mean_square(v)
    v = [x / positive(v_size).astype(x.dtype) for x in v]
    usable = jnp.isfinite(size) & (v_size > 0) & jnp.isfinite(v_size)
    size = jnp.minimum(size / positive(v_size), limits.max)
    return Pair(v, h, size, usable & (size > smallest))


def first_scale(h: jax.Array, size: jax.Array) -> jax.Array:
    """Return q > 0 with q² = 1/rms(size·h), which minimises E[q²hᵀh + vᵀv/q²]; 1 where h is 0."""
    rms = root_mean_square([h])
    scale = 1 / (jnp.sqrt(positive(rms)) * jnp.sqrt(positive(size)).astype(h.dtype))
    return jnp.where(rms > 0, scale, jnp.ones_like(scale))


def by_leaf(
    pair: Pair, noise: Leaves, bounds: Leaves
) -> tuple[Leaves, list[jax.Array], list[jax.Array]]:
    """Return v, whether each leaf is alive, and the scale that the pair gives each leaf's Q.

    A leaf whose h is all zero teaches nothing: its v becomes zero, which leaves Q there as it is.
    The scale is 1 but at a leaf's first usable gradient, where its bound is still zero.
    """
    alive = [jnp.any(x != 0) for x in pair.h]
    v = [x * on.astype(x.dtype) for x, on in zip(pair.v or noise, alive)]
    scales = [
        jnp.where((bound > 0) | ~on, jnp.ones_like(bound), first_scale(x, pair.size))
        for bound, x, on in zip(bounds, pair.h, alive)
    ]
    return v, alive, scales


def shrinkage(preconditioned: jax.Array, size: jax.Array) -> jax.Array:
    """Return the factor on Q that keeps P h within bounds; given is P h without its size."""
    limit = _LARGEST / positive(root_mean_square([preconditioned]))
    ratio = limit / positive(size).astype(limit.dtype)
    return jnp.sqrt(jnp.clip(ratio, jnp.finfo(limit.dtype).tiny, 1.0))


def _saturated(out: jax.Array, given: jax.Array) -> jax.Array:
    """Cast to the dtype of what was given; where that is finite, so is the result."""
    limit = jnp.finfo(given.dtype).max.astype(out.dtype)
    return jnp.where(jnp.isfinite(given), jnp.clip(out, -limit, limit), out).astype(given.dtype)


def times_unit(times: Callable[[Leaves], Leaves], leaves: Leaves) -> Leaves:
    """Apply a linear map to leaves of largest entry 1, and scale back to finite results."""
    largest = positive(largest_entry(leaves))
    outs = times([x / largest.astype(x.dtype) for x in leaves])
    return [_saturated(o * largest.astype(o.dtype), x) for o, x in zip(outs, leaves)]


def running_bound(
    previous: jax.Array, sample: jax.Array, mode: Mode, newton_decay: float = 0.0
) -> jax.Array:
    """Return L: at least the sample's bound. In whitening mode it is slow to forget.

    A pair's own L would weigh the pairs, and move the minimum of their mean; where every pair is
    solved exactly, as in newton mode, weights do no harm. Far above the samples L forgets quickly:
    it stems from a spike, or from before P fitted.
    """
    if mode == "newton":
        kept = newton_decay
    else:
        kept = jnp.where(previous > 4 * sample, 0.9, 0.99).astype(previous.dtype)
    return jnp.maximum(sample, kept * previous + (1 - kept) * sample)


def all_finite(tree: Any) -> jax.Array:
    """Return whether all entries of all arrays are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def kept_unless(usable: jax.Array, new: Any, old: Any) -> Any:
    """Return `new` where it is usable and finite, and `old` where not."""
    use = usable & all_finite(new)
    return jax.tree.map(lambda a, b: jnp.where(use, a, b), new, old)


def normal_like(key: jax.Array, leaves: Leaves) -> Leaves:
    """Draw a standard normal for every leaf."""
    keys = jax.random.split(key, len(leaves))
    return [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]


def check_count(name: str, value: int) -> int | jax.Array:
    """Return the whole number ≥ 1, or raise ValueError; arrays, as when injected, pass unread."""
    return value if isinstance(value, jax.Array) else check_integer(name, value, minimum=1)


def _tuple_again(entry: Any) -> Any:
    """Undo what flax.nnx makes of a tuple in its optimizer state: a mapping by position."""
    return tuple(entry[i] for i in range(len(entry))) if isinstance(entry, Mapping) else entry


def _is_none(node: Any) -> bool:
    return node is None


class _Aligned(NamedTuple):
    """The updates as a list, and which of them there is anything to do for."""

    leaves: list[Any]
    treedef: Any
    present: list[int]

    def of(self, tree: Any, what: str) -> list[Any]:
        """Return the entries of a tree like the parameters for the present leaves."""
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
    """Build the transform of a form; the public functions say what it does."""
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
            out if out.dtype == g.dtype else _saturated(out, g)
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
    """Return (g, v, Hv) at the parameters for PSGD in newton mode.

    One forward-over-reverse pass: about twice the cost of a gradient.

    Args:
      loss: function of the parameters alone (close over the batch) to a scalar.
      params: x, floating-point leaves.
      key: random key of v ~ N(0, I).

    Returns:
      The gradient, v, and the Hessian at x times v, each in the structure of x.

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
