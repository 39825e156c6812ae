"""What all forms of PSGD share: the criterion, where its pairs (v, h) come from, and the state.

Letters: P = QᵀQ the preconditioner, v a random vector, h the vector to be whitened (a gradient) or
the Hessian-vector product Hv, μ the step size of the fit. PSGD minimises

    c(P) = E[hᵀPh + vᵀP⁻¹v]

over a Lie group of Q: Q ← (I − μE/L)Q with E the gradient at the identity and L a bound on its
curvature, so that μ < 1 needs no tuning and Q stays regular. In newton mode L is that of
the pair at hand: where P = H⁻¹ every pair's gradient is zero, so the fit is exact whatever the
weights. In whitening mode only the mean gradient vanishes, and weights 1/L would move the minimum:
there L is a running bound.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.blocks import floating_leaves
from sibert_jax.optim.scalars import check_scalar, value_at

Mode = Literal["whitening", "newton"]
Leaves = list[jax.Array]

# How slowly L forgets: over a hundred fits, or at once.
BOUND_DECAY: dict[Mode, float] = {"whitening": 0.99, "newton": 0.0}


class PsgdState(NamedTuple):
    """State of every PSGD transform.

    Attributes:
      count: int32, steps taken; the random vectors are a function of it and the seed.
      preconditioner: float32 arrays of Q, in the form's own layout.
    """

    count: jax.Array
    preconditioner: Any


class Form(NamedTuple):
    """A family of Q, as pure functions on float32 leaves.

    Attributes:
      init: (leaves) -> Q near the identity.
      rescale: (Q, v, h) -> Q times the scalar that minimises the criterion; for the first pair.
      fit: (Q, v, h, μ, count, decay of L) -> Q after one step on the criterion.
      apply: (Q, g) -> P g.
    """

    init: Callable[[Leaves], Any]
    rescale: Callable[[Any, Leaves, Leaves], Any]
    fit: Callable[[Any, Leaves, Leaves, jax.Array, jax.Array, float], Any]
    apply: Callable[[Any, Leaves], Leaves]


def best_scalar(v: jax.Array, h: jax.Array) -> jax.Array:
    """Return q > 0 with q² = √(vᵀv / hᵀh), which minimises q²hᵀh + vᵀv/q²; 1 where h = 0."""
    hh, vv = jnp.sum(jnp.square(h)), jnp.sum(jnp.square(v))
    usable = (hh > 0) & jnp.isfinite(hh)
    return jnp.where(usable, (vv / jnp.where(usable, hh, 1.0)) ** 0.25, 1.0)


def running_bound(previous: jax.Array, sample: jax.Array, decay: float) -> jax.Array:
    """Return L: at least the sample's bound, and otherwise slow to forget."""
    return jnp.maximum(sample, decay * previous + (1 - decay) * sample)


def usable(h: jax.Array) -> jax.Array:
    """Return whether h can teach anything: finite and not all zero."""
    return jnp.all(jnp.isfinite(h)) & jnp.any(h != 0)


def flat(leaves: Leaves) -> jax.Array:
    """Join all leaves into one vector."""
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])


def unflat(vector: jax.Array, like: Leaves) -> Leaves:
    """Undo `flat`."""
    outs, start = [], 0
    for leaf in like:
        outs.append(vector[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return outs


def _random_normal(seed: int, count: jax.Array, like: Leaves) -> Leaves:
    key = jax.random.fold_in(jax.random.key(seed), count)
    keys = jax.random.split(key, len(like))
    return [jax.random.normal(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, like)]


def _float32_leaves(tree: optax.Params) -> Leaves:
    return [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]


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
    check_scalar("update_every", update_every, minimum=1)
    if mode not in BOUND_DECAY:
        raise ValueError(f"mode must be 'whitening' or 'newton', found {mode!r}.")

    def init_fn(params):
        floating_leaves(params)
        zeros = [jnp.zeros(jnp.shape(x), jnp.float32) for x in jax.tree.leaves(params)]
        return PsgdState(jnp.zeros([], jnp.int32), form.init(zeros) if zeros else ())

    def pair(gradients: Leaves, count, extra_args) -> tuple[Leaves, Leaves]:
        if mode == "whitening":
            return _random_normal(seed, count, gradients), gradients
        missing = [name for name in ("vector", "hvp") if extra_args.get(name) is None]
        if missing:
            raise ValueError(
                f"PSGD in newton mode needs `{missing[0]}`: call update(grads, state, params, "
                "vector=v, hvp=Hv), see sibert_jax.optim.gradient_and_hvp."
            )
        return _float32_leaves(extra_args["vector"]), _float32_leaves(extra_args["hvp"])

    def update_fn(updates, state, params=None, **extra_args):
        del params
        floating_leaves(updates)
        gradients, treedef = _float32_leaves(updates), jax.tree.structure(updates)
        if not gradients:
            return updates, PsgdState(optax.safe_increment(state.count), ())
        v, h = pair(gradients, state.count, extra_args)
        mu = value_at(preconditioner_learning_rate, state.count).astype(jnp.float32)

        def fit(q):
            q = jax.lax.cond(state.count == 0, lambda q: form.rescale(q, v, h), lambda q: q, q)
            return form.fit(q, v, h, mu, state.count // update_every, BOUND_DECAY[mode])

        due = state.count % update_every == 0
        q = jax.lax.cond(due, fit, lambda q: q, state.preconditioner)
        outs = [
            out.astype(u.dtype)
            for out, u in zip(form.apply(q, gradients), jax.tree.leaves(updates))
        ]
        new_state = PsgdState(optax.safe_increment(state.count), q)
        return jax.tree.unflatten(treedef, outs), new_state

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
