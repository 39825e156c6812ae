"""Partition a tree between two transforms: one for the scale-invariant leaves, one for the head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from sibert_jax.optim.blocks import aligned, leaf_names, prefix_values


class PartitionByInvarianceState(NamedTuple):
    """The states of both transforms, unchanged.

    Attributes:
      encoder: state of the transform of the scale-invariant leaves.
      head: state of the transform of all other leaves.
    """

    encoder: optax.OptState
    head: optax.OptState


def _mask_leaves(is_scale_invariant: Any, tree: optax.Params) -> Any:
    """Return a checked tree of bools with the structure of `tree`."""
    if not jax.tree.leaves(tree):
        return tree
    mask = is_scale_invariant(tree) if callable(is_scale_invariant) else is_scale_invariant
    values = prefix_values(mask, tree, "entry in is_scale_invariant")
    for name, value in zip(leaf_names(tree), values):
        if not isinstance(value, bool | np.bool_):
            raise ValueError(
                f"is_scale_invariant holds {value!r} for leaf {name}; it must hold True or False."
            )
    return jax.tree.unflatten(jax.tree.structure(tree), [bool(value) for value in values])


def _check_sides(mask: Any) -> None:
    for side, name in ((True, "scale invariant"), (False, "in the head")):
        sides = jax.tree.leaves(mask)
        if sides and side not in sides:
            raise ValueError(
                f"is_scale_invariant leaves no leaf {name}: use one transform for the whole tree, "
                "or correct the mask."
            )


def partition_by_invariance(
    encoder_tx: optax.GradientTransformation,
    head_tx: optax.GradientTransformation,
    is_scale_invariant: Any | Callable[[optax.Params], Any],
) -> optax.GradientTransformationExtraArgs:
    """Apply `encoder_tx` to the scale-invariant leaves and `head_tx` to all others.

    Each transform sees only its own leaves, so norms do not mix the two sides.

    Args:
      encoder_tx: transform of the leaves marked True, such as `scale_invariant_sgd(...)`.
      head_tx: transform of the leaves marked False, such as `optax.lamb(...)`.
      is_scale_invariant: a tree of bools with the parameters' structure or a prefix of it, or a
        function from the parameters or updates to one. Every leaf gets exactly one entry; neither
        side may be empty.

    Returns:
      A transformation with state `PartitionByInvarianceState(encoder, head)`. Extra arguments are
      passed to both transforms; one with the structure of the gradients (such as a vector for PSGD)
      is partitioned like them. A None among the updates stays None.

    Raises:
      ValueError: from `init` and `update`: a leaf without an entry, an entry without a leaf, or an
        entry that is not a bool; from `init`: a side without leaves.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sibert_jax.optim import partition_by_invariance, scale_invariant_sgd
      >>> tx = partition_by_invariance(
      ...     scale_invariant_sgd(0.5, 0.25), optax.sgd(1.0), {"encoder": True, "head": False})
      >>> params = {"encoder": {"w": jnp.array([3.0, 4.0])}, "head": {"w": jnp.array([100.0])}}
      >>> grads = {"encoder": {"w": jnp.array([4.0, -3.0])}, "head": {"w": jnp.array([1.0])}}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(state.encoder.param_norm, updates["head"]["w"])
      5.0 [-1.]

    References:
      Li et al., https://arxiv.org/abs/2202.00980, section 5: the encoder under clipped SGD, the
      pretraining head, which is not scale invariant, under LAMB.
    """

    def both(mask):
        head_mask = jax.tree.map(lambda invariant: not invariant, mask)
        return tuple(
            optax.masked(tx, side, mask_compatible_extra_args=True)
            for tx, side in ((encoder_tx, mask), (head_tx, head_mask))
        )

    def init_fn(params):
        mask = _mask_leaves(is_scale_invariant, params)
        _check_sides(mask)
        encoder, head = both(mask)
        return PartitionByInvarianceState(
            encoder.init(params).inner_state, head.init(params).inner_state
        )

    def update_fn(updates, state, params=None, **extra_args):
        if params is not None:  # expand a None in place of a subtree to all its leaves
            leaves = aligned(updates, params)
            updates = jax.tree.unflatten(jax.tree.structure(params), leaves)
        tree = updates if params is None else params
        encoder, head = both(_mask_leaves(is_scale_invariant, tree))
        updates, encoder_state = encoder.update(
            updates, optax.MaskedState(state.encoder), params, **extra_args
        )
        updates, head_state = head.update(
            updates, optax.MaskedState(state.head), params, **extra_args
        )
        return updates, PartitionByInvarianceState(
            encoder_state.inner_state, head_state.inner_state
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
