"""Measurements of one update, and the metrics rows built from them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sibert_jax import optim
from sibert_jax.train.optimizer import Optimizer


def metric_names(optimizer: Optimizer) -> tuple[str, ...]:
    """Returns the names of the metrics of `measure`."""
    names = ("grad_norm", "param_norm", "relative_grad_norm", "rotation", "euler_residual")
    names += ("learning_rate",)
    names += () if optimizer.measures_rate else ("effective_learning_rate",)
    if optimizer.follows_theory:
        names += ("predicted_rotation",)
        names += () if optimizer.holds_angle else ("sphere_grad_square",)
    if optimizer.clip_factor is not None:
        names += ("clipped", "clip_threshold")
    return names


def measure(optimizer: Optimizer, step, params, grads, updates, opt_state) -> dict[str, jax.Array]:
    """Measures norms, clip and rotation over the leaves of `optimizer.measured`: float32 scalars.

    Args:
      optimizer: the run's optimizer.
      step: int32, updates done by the optimizer.
      params: parameters before the update.
      grads: gradients before the clip.
      updates: the changes of the parameters.
      opt_state: optimizer state after the update.
    """
    x, g = leaves_where(optimizer.measured, params), leaves_where(optimizer.measured, grads)
    x_norm, g_norm = optax.tree.norm(x), optax.tree.norm(g)
    cosine = optim.radial_cosine(x, g)
    learning_rate = jnp.asarray(optimizer.learning_rate(step), jnp.float32)
    metrics = {
        "param_norm": x_norm,
        "grad_norm": g_norm,
        "relative_grad_norm": jnp.where(x_norm > 0, g_norm / jnp.where(x_norm > 0, x_norm, 1), 0),
        "euler_residual": jnp.abs(cosine),
        "learning_rate": learning_rate,
    }
    if not optimizer.measures_rate:
        metrics["effective_learning_rate"] = optim.effective_learning_rate(learning_rate, x)
    if optimizer.follows_theory:
        metrics |= _of_the_recipe(optimizer, learning_rate, opt_state)
    if optimizer.is_one_block:
        clipped_norm = jnp.minimum(g_norm, metrics.get("clip_threshold", jnp.inf) * x_norm)
        metrics["rotation"] = optim.sgd_rotation(
            learning_rate, optimizer.weight_decay, x_norm, clipped_norm, cosine
        )
    else:
        metrics["rotation"] = optim.rotation(x, leaves_where(optimizer.measured, updates))
    return metrics


def _of_the_recipe(optimizer: Optimizer, learning_rate, opt_state) -> dict[str, jax.Array]:
    """Returns clip and σ from the norms measured by the clip, over all blocks.

    ‖g‖/‖x‖ is what the clip sees: under `equilibrium_sgd`, that of gradients times their rates.
    """
    (clip,) = [
        node for node in jax.tree.leaves(opt_state, is_leaf=_is_clip_state) if _is_clip_state(node)
    ][:1]
    x_norms, g_norms = (jnp.stack(jax.tree.leaves(n)) for n in (clip.param_norm, clip.grad_norm))
    x_norm, g_norm = jnp.linalg.norm(x_norms), jnp.linalg.norm(g_norms)
    metrics = {"relative_grad_norm": jnp.where(x_norm > 0, g_norm / x_norm, 0)}
    if optimizer.clip_factor is not None:
        threshold = optim.equilibrium.clip_threshold(
            learning_rate, optimizer.weight_decay, optimizer.clip_factor
        )
        g_norms = jnp.minimum(g_norms, threshold * x_norms)
        metrics["clip_threshold"] = threshold
        metrics["clipped"] = jnp.mean(jnp.stack(jax.tree.leaves(clip.clipped_fraction)))
    eta_lambda = learning_rate * optimizer.weight_decay
    if optimizer.holds_angle:
        return metrics | {"predicted_rotation": jnp.sqrt(2 * learning_rate * eta_lambda)}
    metrics["predicted_rotation"] = jnp.sqrt(2 * eta_lambda)
    # ‖∇L(x/‖x‖)‖² after the clip: the equilibrium norm follows from its mean. For several blocks,
    # ‖x‖²_eq is the sum over blocks, each proportional to its σ.
    metrics["sphere_grad_square"] = jnp.square(jnp.sum(x_norms * g_norms))
    return metrics


def _is_clip_state(node: Any) -> bool:
    return isinstance(node, optim.RelativeClipState)


def leaves_where(mask: Any, tree: Any, *, inside: bool = True) -> list[jax.Array]:
    """Returns the leaves on one side of a mask."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(mask))
    return [leaf for leaf, is_inside in pairs if is_inside == inside]


def metrics_row(sums: dict, count: int, num_bad_steps: int, weight_decay: float) -> dict:
    """Returns a row of the metrics file: means over a window of steps.

    A window without good steps has no means, only the count of bad steps so far.

    The equilibrium norm is the one implied by the window's clipped gradients:
    ‖x‖_eq² = √(η/(λ(2−ηλ)))·σ with σ² the mean of ‖∇L(x/‖x‖)‖² (arXiv 2202.00980, section 4).

    Args:
      sums: sums of each metric over the good steps.
      count: number of good steps.
      num_bad_steps: bad steps of the run so far.
      weight_decay: λ.
    """
    bad_steps = {"train/bad_steps": num_bad_steps}
    if count == 0:
        return bad_steps
    means = {name: float(value) / count for name, value in sums.items()}
    sphere = means.pop("sphere_grad_square", None)
    row = {f"{_section(name)}/{name}": value for name, value in means.items()} | bad_steps
    learning_rate = means["learning_rate"]
    if sphere is not None:
        row["optim/weight_decay"] = weight_decay
        if learning_rate > 0 and weight_decay > 0 and math.isfinite(sphere):
            norm = float(
                optim.equilibrium.equilibrium_norm(learning_rate, weight_decay, math.sqrt(sphere))
            )
            row["optim/equilibrium_norm"] = norm
            if norm > 0 and means["param_norm"] > 0:
                row["optim/equilibrium_gap"] = math.log(means["param_norm"] / norm)
    return row


def _section(name: str) -> str:
    if name == "dead_attention_rows":
        return "model"
    return "train" if name.endswith("loss") else "optim"
