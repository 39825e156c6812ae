"""Pairs (v, h) freed from their scale, and arithmetic that neither over- nor underflows.

Letters as in transform.py.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Mode = Literal["whitening", "newton"]
Leaves = list[jax.Array]

# The noise in h, as a part of its rms. Hessian products are exact, so the noise is below rounding.
DAMPING: dict[Mode, float] = {"whitening": 1e-4, "newton": 1e-8}

# The largest rms of P h, against that of v: where it is larger, Q shrinks at once. The first
# gradient of a leaf, which sets its scale, may have been small by chance.
_LARGEST = 10.0


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
    """Return q > 0 with q² = 1/rms(size·h), which minimizes E[q²hᵀh + vᵀv/q²]; 1 where h is 0."""
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


def saturated(out: jax.Array, given: jax.Array) -> jax.Array:
    """Cast to the dtype of what was given; where that is finite, so is the result."""
    limit = jnp.finfo(given.dtype).max.astype(out.dtype)
    return jnp.where(jnp.isfinite(given), jnp.clip(out, -limit, limit), out).astype(given.dtype)


def times_unit(times: Callable[[Leaves], Leaves], leaves: Leaves) -> Leaves:
    """Apply a linear map to leaves of largest entry 1, and scale back to finite results."""
    largest = positive(largest_entry(leaves))
    outs = times([x / largest.astype(x.dtype) for x in leaves])
    return [saturated(o * largest.astype(o.dtype), x) for o, x in zip(outs, leaves)]


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
