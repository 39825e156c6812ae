"""The optimizer of a run: one transform for encoder, head and an optional third group."""

import math
import re
from typing import Any, NamedTuple

import jax
import optax

from sibert_jax import optim
from sibert_jax.errors import ConfigError
from sibert_jax.train.optim_config import OptimConfig, decays, make_schedule
from sibert_jax.train.optimizer_table import TABLE, make_optimizer, parse_options
from sibert_jax.trees import path_name


class Optimizer(NamedTuple):
    """The transform of a run, and the quantities that determine its equilibrium.

    Attributes:
      tx: the transform of all parameters.
      measured: a mask, True on the scale-invariant leaves trained by `optim.name`, whose norms are
        logged.
      learning_rate: the schedule η_t of these leaves.
      weight_decay: λ of these leaves.
      clip_factor: C; None if there is no clip or another optimizer.
      follows_theory: whether the theory of SGD with weight decay applies.
      measures_rate: whether it measures η itself, so that η_t is a factor on it.
      holds_angle: whether it turns these leaves by η_t·√(2λ), regardless of their norm.
      is_one_block: whether their update is −η·(m·g + λ·x) with a single clip factor m.
    """

    tx: optax.GradientTransformation
    measured: Any
    learning_rate: optax.Schedule
    weight_decay: float
    clip_factor: float | None
    follows_theory: bool
    measures_rate: bool
    holds_angle: bool
    is_one_block: bool


def build_optimizer(c: OptimConfig, num_steps: int, mask: Any) -> Optimizer:
    """Builds the optimizer of a run.

    Args:
      c: the config, with learning rates set and warm-up in steps.
      num_steps: total updates of the run.
      mask: a tree like the parameters, True on scale-invariant leaves.
    """
    labels = _labels(c, mask)
    blocks = tensor_blocks if c.blocks == "tensor" else None
    schedule = make_schedule(c, c.learning_rate, num_steps)
    txs = {
        section: make_optimizer(
            group.name,
            parse_options(section, group.name, group.options),
            make_schedule(group, group.learning_rate, num_steps),
            group.weight_decay,
            mask=decays,
            clip_factor=c.clip_factor,
            blocks=blocks,
        )
        for section, group in c.groups.items()
    }
    if c.max_grad_norm:
        txs["optim"] = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), txs["optim"])
    if list(txs) == ["optim", "optim.head"]:
        in_encoder = jax.tree.map(lambda label: label == "optim", labels)
        tx = optim.partition_by_invariance(txs["optim"], txs["optim.head"], in_encoder)
    else:
        tx = txs["optim"] if len(txs) == 1 else optax.partition(txs, labels)
    follows_theory, measures_rate = TABLE[c.name].follows_theory, TABLE[c.name].measures_rate
    options = parse_options("optim", c.name, c.options)
    rate_stays = "memory" in options and options["memory"] is None
    has_clip = follows_theory and not math.isinf(c.clip_factor)
    return Optimizer(
        tx=tx,
        measured=jax.tree.map(lambda inside, label: inside and label == "optim", mask, labels),
        learning_rate=schedule,
        weight_decay=c.weight_decay,
        clip_factor=c.clip_factor if has_clip else None,
        follows_theory=follows_theory,
        measures_rate=measures_rate,
        holds_angle=measures_rate and not rate_stays,
        is_one_block=follows_theory
        and not measures_rate
        and blocks is None
        and not c.max_grad_norm,
    )


def tensor_blocks(params: Any) -> Any:
    """Labels each tensor of each layer; a kernel or gain shares its label with its bias.

    Args:
      params: parameters of a model; scanned layers are stacked along the first axis.

    Returns:
      A tree of labels for the `blocks` argument of our optimizers.
    """

    def label(path, _):
        parent, _, last = path_name(path).rpartition("/")
        name = parent if last in ("kernel", "bias", "scale") else path_name(path)
        return optim.Rows(name) if name.startswith("encoder/layers/layer/") else name

    return jax.tree_util.tree_map_with_path(label, params)


def _labels(c: OptimConfig, tree: Any) -> Any:
    """Returns the optimizer section of each leaf."""
    found = jax.tree_util.tree_map_with_path(lambda path, _: _section(c, path_name(path)), tree)
    missing = set(c.groups) - set(jax.tree.leaves(found))
    if "optim.other" in missing:
        raise ConfigError(
            f"optim.other.pattern={c.other.pattern!r} matches no parameter; the paths look like "
            "encoder/embed/token."
        )
    if missing and not c.other.pattern:
        raise ConfigError(
            "the head of this task has no parameters for an optimizer of its own; set "
            'optim.head.name="same".'
        )
    if missing:
        raise ConfigError(
            f"optim.other.pattern={c.other.pattern!r} leaves no parameters for {missing.pop()}."
        )
    return found


def _section(c: OptimConfig, name: str) -> str:
    if c.other.pattern and re.search(c.other.pattern, name):
        return "optim.other"
    return "optim.head" if name.startswith("head/") and c.head.name != "same" else "optim"
