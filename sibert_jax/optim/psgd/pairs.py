"""Pairs (v, h) normalized in scale, and arithmetic that neither overflows nor underflows.

Notation as in transform.py.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Mode = Literal["whitening", "newton"]
Leaves = list[jax.Array]

# The noise in h relative to its rms. Hessian-vector products are exact: theirs is below rounding.
DAMPING: dict[Mode, float] = {"whitening": 1e-4, "newton": 1e-8}

# The largest rms of P h relative to that of v; above it, Q shrinks at once. The first gradient of a
# leaf, which sets its scale, may have been small by chance.
_LARGEST = 10.0


class Pair(NamedTuple):
    """A pair (v, h) of one tensor or of all leaves, normalized in scale.

    Attributes:
      v: rms 1; None in whitening mode, where v ~ N(0, I).
      h: largest entry 1, damped.
      size: the scale taken out of h: the pair stands for (v, size·h).
      usable: whether the pair can be fitted: it is finite, v is not zero, and h is neither zero nor
        below 1e-26 of v (1e-215 in float64), where the entries of P would overflow.
    """

    v: Leaves | None
    h: Leaves
    size: jax.Array
    usable: jax.Array


def fit_dtype(leaf: jax.Array) -> jnp.dtype:
    """Return the dtype of a leaf's preconditioner: float32, or the leaf's own if it is wider."""
    dtype = jnp.result_type(leaf)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def widest_dtype(leaves: Leaves) -> jnp.dtype:
    """Return the widest dtype of the leaves, at least float32."""
    return max([jnp.dtype(jnp.float32), *map(fit_dtype, leaves)], key=lambda dtype: dtype.itemsize)


def positive(x: jax.Array) -> jax.Array:
    """Return x where it is positive and 1 elsewhere, for use as a divisor."""
    return jnp.where(x > 0, x, jnp.ones_like(x))


def largest_entry(leaves: Leaves) -> jax.Array:
    """Return max |x| over all leaves, in their widest dtype."""
    dtype = widest_dtype(leaves)
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(dtype) for x in leaves]))


def root_mean_square(leaves: Leaves) -> jax.Array:
    """Return √mean x² over all leaves, for any scale."""
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
    """Return v, whether each leaf has a nonzero h, and the scale that the pair gives each leaf's Q.

    Where h is all zero, v becomes zero too, which leaves that leaf's Q unchanged. The scale is 1
    except at a leaf's first usable gradient, where its bound is still zero.
    """
    alive = [jnp.any(x != 0) for x in pair.h]
    v = [x * on.astype(x.dtype) for x, on in zip(pair.v or noise, alive)]
    scales = [
        jnp.where((bound > 0) | ~on, jnp.ones_like(bound), first_scale(x, pair.size))
        for bound, x, on in zip(bounds, pair.h, alive)
    ]
    return v, alive, scales


def shrinkage(preconditioned: jax.Array, size: jax.Array) -> jax.Array:
    """Return the factor on Q that keeps P h within bounds, from P h without its size."""
    limit = _LARGEST / positive(root_mean_square([preconditioned]))
    ratio = limit / positive(size).astype(limit.dtype)
    return jnp.sqrt(jnp.clip(ratio, jnp.finfo(limit.dtype).tiny, 1.0))


def saturated(out: jax.Array, given: jax.Array) -> jax.Array:
    """Cast `out` to the dtype of `given`; finite wherever `given` is."""
    limit = jnp.finfo(given.dtype).max.astype(out.dtype)
    return jnp.where(jnp.isfinite(given), jnp.clip(out, -limit, limit), out).astype(given.dtype)


def times_unit(times: Callable[[Leaves], Leaves], leaves: Leaves) -> Leaves:
    """Apply a linear map to leaves scaled to largest entry 1, and scale back to finite results."""
    largest = positive(largest_entry(leaves))
    outs = times([x / largest.astype(x.dtype) for x in leaves])
    return [saturated(o * largest.astype(o.dtype), x) for o, x in zip(outs, leaves)]


def running_bound(
    previous: jax.Array, sample: jax.Array, mode: Mode, newton_decay: float = 0.0
) -> jax.Array:
    """Return L, at least the sample's bound; in whitening mode a slowly decaying one.

    A pair's own L would weight the pairs and shift the minimum of their mean; in newton mode, where
    one P fits every pair exactly, weights do no harm. An L far above the samples decays quickly: it
    stems from a spike, or from before P was fitted.
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
    """Return `new` if it is usable and finite, else `old`."""
    use = usable & all_finite(new)
    return jax.tree.map(lambda a, b: jnp.where(use, a, b), new, old)


def normal_like(key: jax.Array, leaves: Leaves) -> Leaves:
    """Draw a standard normal for every leaf."""
    keys = jax.random.split(key, len(leaves))
    return [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
