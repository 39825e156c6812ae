"""The optimizer of a run: its keys, and one transform for encoder, head and a group by pattern."""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sibert_jax import optim
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.train.optimizer_table import TABLE, make_optimizer, parse_options
from sibert_jax.trees import path_name

SCHEDULES = ("constant", "piecewise", "linear", "cosine", "warmup_stable_decay")


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Keys that the sections of `optim` share: each is an optimizer of some leaves."""

    name: str = key("adamw", "a row of train/optimizer_table.py", choices=tuple(TABLE))
    learning_rate: float = key(1e-3, "peak", low=0, below=math.inf)
    weight_decay: float = key(0.01, "on matrices, not on biases and gains", low=0, below=math.inf)
    schedule: str = key("linear", "of the learning rate", choices=SCHEDULES)
    warmup_steps: int = key(0, "linear from 0", low=0)
    warmup_fraction: float = key(
        0.0, "the same as a share of all steps; 0: warmup_steps counts", low=0, below=1
    )
    options: str = key("", 'of the optimizer, such as "b2=0.98, nesterov=True"')

    def check(self, section: str) -> None:
        check(section, self)
        if self.warmup_steps and self.warmup_fraction:
            raise ConfigError(
                f"{section}.warmup_steps={self.warmup_steps} and {section}.warmup_fraction="
                f"{self.warmup_fraction}: one of them says the warm-up, so set the other to 0."
            )

    def check_optimizer(self, section: str) -> None:
        """Makes the optimizer, and where it has options takes an abstract step with it."""
        options = parse_options(section, self.name, self.options)
        measures_rate = TABLE[self.name].measures_rate
        is_open = getattr(self, "eta_lambda", 0.0) > 0  # λ is found when the run starts
        if measures_rate and not is_open and self.learning_rate != 1:
            raise ConfigError(
                f"{section}.learning_rate={self.learning_rate} with {section}.name={self.name!r}, "
                "which measures its rates: it multiplies them, so set it to 1, and "
                f"{section}.weight_decay to ηλ."
            )
        try:
            tx = make_optimizer(
                self.name,
                options,
                optax.constant_schedule(1.0),
                0.5 if measures_rate and is_open else self.weight_decay,
                mask=_decays,
            )
            if options:
                params = {"layer": {"dense": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}}
                with jax.numpy_dtype_promotion("standard"):  # which optax counts on
                    jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)
        except ConfigError as error:
            raise ConfigError(f"{section}: {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{section}.options={self.options!r} cannot be used with {section}.name="
                f"{self.name!r}: {' '.join(str(error).split())}."
            ) from None


@dataclasses.dataclass(frozen=True)
class HeadConfig(GroupConfig):
    """Keys under `optim.head`."""

    name: str = key(
        "lamb", "a row of train/optimizer_table.py; same: the encoder's, over all parameters",
        choices=("same", *TABLE),
    )  # fmt: skip
    learning_rate: float = key(4e-3, "peak", low=0, below=math.inf)


@dataclasses.dataclass(frozen=True)
class OtherConfig(GroupConfig):
    """Keys under `optim.other`: a third optimizer, for an experiment."""

    pattern: str = key(
        "", "regular expression found in the paths of its leaves, as encoder/embed; empty: no leaf"
    )


@dataclasses.dataclass(frozen=True)
class OptimConfig(GroupConfig):
    """Keys under `optim`."""

    name: str = key(
        "scale_invariant_sgd", "of the encoder: a row of train/optimizer_table.py",
        choices=tuple(TABLE),
    )  # fmt: skip
    eta_lambda: float = key(
        3.3e-3, "η·λ: gradients set η so that scale_invariant_sgd (one gradient), "
        "equilibrium_sgd and orthogonalized_sgd (those of the first steps) start at equilibrium; "
        "0: learning_rate and weight_decay count; the paper has 8e-6, short runs up to about 5e-3",
        low=0, below=1,
    )  # fmt: skip
    blocks: str = key(
        "all", "what has a norm of its own, for optimizers with norms: all leaves together (in "
        "hyperball each leaf), or each tensor of each layer, a kernel with its bias",
        choices=("all", "tensor"),
    )  # fmt: skip
    learning_rate: float = key(0.0, "peak η", low=0, below=math.inf)
    weight_decay: float = key(0.0, "λ, multiplied by η_t in the update", low=0, below=math.inf)
    clip_factor: float = key(
        4.0, "C of scale_invariant_sgd's clip at √(2Cλ/η)·‖x‖; 1 would clip at equilibrium; inf: "
        "no clip", above=1,
    )  # fmt: skip
    max_grad_norm: float = key(0.0, "global norm that gradients are clipped to; 0: no clip", low=0)
    schedule: str = key("cosine", "of the learning rate", choices=SCHEDULES)
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    other: OtherConfig = dataclasses.field(default_factory=OtherConfig)

    def __post_init__(self):
        self.check("optim")
        self.head.check("optim.head")
        self.other.check("optim.other")
        for section, group in self.groups.items():
            group.check_optimizer(section)
        given = self.learning_rate > 0 or self.weight_decay > 0
        if self.eta_lambda > 0 and given:
            raise ConfigError(
                f"optim.eta_lambda={self.eta_lambda} sets both η and λ, but optim.learning_rate="
                f"{self.learning_rate} and optim.weight_decay={self.weight_decay} are given too; "
                "set eta_lambda to 0, or both of them to 0."
            )
        if self.eta_lambda == 0 and self.learning_rate == 0:
            raise ConfigError("optim: give learning_rate > 0, or eta_lambda > 0 to have it found.")
        if not TABLE[self.name].follows_theory and self.eta_lambda > 0:
            raise ConfigError(
                "optim.eta_lambda is for scale_invariant_sgd, equilibrium_sgd and "
                f"orthogonalized_sgd; with optim.name={self.name} set it to 0 and give "
                "learning_rate and weight_decay."
            )
        try:
            re.compile(self.other.pattern)
        except re.error as error:
            raise ConfigError(
                f"optim.other.pattern={self.other.pattern!r} is no regular expression: {error}."
            ) from None

    @property
    def groups(self) -> dict[str, Any]:
        """The sections in use, by name."""
        groups = {"optim": self}
        if self.head.name != "same":
            groups["optim.head"] = self.head
        if self.other.pattern:
            groups["optim.other"] = self.other
        return groups

    @property
    def follows_theory(self) -> bool:
        """Whether it is SGD with weight decay, for scale-invariant parameters."""
        return TABLE[self.name].follows_theory

    def with_warmup_steps(self, num_steps: int) -> "OptimConfig":
        """The same, the shares of warm-up as numbers of steps."""

        def in_steps(group, **changes):
            steps = group.warmup_steps or int(group.warmup_fraction * num_steps)
            return dataclasses.replace(group, warmup_steps=steps, warmup_fraction=0.0, **changes)

        return in_steps(self, head=in_steps(self.head), other=in_steps(self.other))

    def with_rates(self, learning_rate: float, weight_decay: float) -> "OptimConfig":
        """The same with η and λ as found for `eta_lambda`."""
        return dataclasses.replace(
            self, eta_lambda=0.0, learning_rate=learning_rate, weight_decay=weight_decay
        )


class Optimizer(NamedTuple):
    """The transform of a run, and the quantities that its equilibrium depends on.

    Attributes:
      tx: the transform of all parameters.
      measured: True on the scale-invariant leaves that `optim.name` trains: of these are the norms.
      learning_rate: η_t of these.
      weight_decay: λ of these.
      clip_factor: C; None: no clip, or not the recipe.
      follows_theory: whether the theory of SGD with weight decay applies.
      measures_rate: whether it finds η itself, so that η_t here is a factor of that.
      holds_angle: whether it turns them by η_t·√(2λ), whatever their norm.
      is_one_block: whether their update is −η·(m·g + λ·x) with one factor m.
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
    """The optimizer of a run.

    Args:
      c: with its rates and its warm-up in steps.
      num_steps: updates of the run.
      mask: True on scale-invariant leaves; a tree like the parameters.
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
            mask=_decays,
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


def make_schedule(group: Any, peak_value: float, num_steps: int) -> optax.Schedule:
    """η_t of a group of leaves, by the keys of its section."""
    return optim.make_schedule(
        group.schedule, peak_value=peak_value, num_steps=num_steps, warmup_steps=group.warmup_steps
    )


def tensor_blocks(params: Any) -> Any:
    """A label for each tensor of each layer; a kernel and its bias, a gain and its bias share one.

    Args:
      params: of a model; layers that are scanned over are stacked along the first axis.

    Returns:
      A tree of labels, for the `blocks` of our optimizers.
    """

    def label(path, _):
        parent, _, last = path_name(path).rpartition("/")
        name = parent if last in ("kernel", "bias", "scale") else path_name(path)
        return optim.Rows(name) if name.startswith("encoder/layers/layer/") else name

    return jax.tree_util.tree_map_with_path(label, params)


def _labels(c: OptimConfig, tree: Any) -> Any:
    """The section of the optimizer of each leaf."""
    found = jax.tree_util.tree_map_with_path(lambda path, _: _section(c, path_name(path)), tree)
    missing = set(c.groups) - set(jax.tree.leaves(found))
    if "optim.other" in missing:
        raise ConfigError(f"optim.other.pattern={c.other.pattern!r} is found in no path of a leaf.")
    if missing and not c.other.pattern:
        raise ConfigError(
            "the head of this task has no parameters for an optimizer of its own; set "
            'optim.head.name="same".'
        )
    if missing:
        raise ConfigError(
            f"optim.other.pattern={c.other.pattern!r} leaves nothing to {missing.pop()}."
        )
    return found


def _section(c: OptimConfig, name: str) -> str:
    if c.other.pattern and re.search(c.other.pattern, name):
        return "optim.other"
    return "optim.head" if name.startswith("head/") and c.head.name != "same" else "optim"


def _decays(params: Any) -> Any:
    """True on matrices and tables, False on biases and gains (Devlin et al. 2019)."""

    def is_matrix(path, _):
        return not path[-1].key.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)
