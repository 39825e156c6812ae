"""Config keys of a run's optimizers: encoder, head, and a group selected by pattern."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sibert_jax import optim
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.train.optimizer_table import TABLE, make_optimizer, parse_options

SCHEDULES = ("constant", "piecewise", "linear", "cosine", "warmup_stable_decay")


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Keys shared by the sections of `optim`, each the optimizer of a group of leaves."""

    name: str = key("adamw", "optimizer; see docs/optimizers.md", choices=tuple(TABLE))
    learning_rate: float = key(1e-3, "peak learning rate", low=0, below=math.inf)
    weight_decay: float = key(
        0.01, "weight decay; most optimizers exempt biases and gains", low=0, below=math.inf
    )
    schedule: str = key("linear", "learning-rate schedule", choices=SCHEDULES)
    warmup_steps: int = key(0, "steps of linear warmup from 0", low=0)
    warmup_fraction: float = key(
        0.0, "warmup as a fraction of all steps; 0: use warmup_steps", low=0, below=1
    )
    options: str = key("", 'further parameters of the optimizer, such as "b2=0.98, nesterov=True"')

    def check(self, section: str) -> None:
        check(section, self)
        if self.warmup_steps and self.warmup_fraction:
            raise ConfigError(
                f"{section}.warmup_steps={self.warmup_steps} and "
                f"{section}.warmup_fraction={self.warmup_fraction}: only one of them can set the "
                "warmup; set the other to 0."
            )

    def check_optimizer(self, section: str) -> None:
        """Checks the section by building its optimizer; with options, also traces a step."""
        options = parse_options(section, self.name, self.options)
        measures_rate = TABLE[self.name].measures_rate
        is_open = getattr(self, "eta_lambda", 0.0) > 0  # λ is determined when the run starts
        if measures_rate and not is_open and self.learning_rate != 1:
            raise ConfigError(
                f"{section}.learning_rate={self.learning_rate} with {section}.name={self.name!r}, "
                "which sets its rates from measurements and multiplies them by learning_rate: "
                f"set it to 1, and {section}.weight_decay to ηλ."
            )
        try:
            tx = make_optimizer(
                self.name,
                options,
                optax.constant_schedule(1.0),
                0.5 if measures_rate and is_open else self.weight_decay,
                mask=decays,
            )
            if options:
                params = {"layer": {"dense": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}}
                with jax.numpy_dtype_promotion("standard"):  # which optax relies on
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
        "lamb", "optimizer of the head; same: that of the encoder, for all parameters",
        choices=("same", *TABLE),
    )  # fmt: skip
    learning_rate: float = key(4e-3, "peak learning rate", low=0, below=math.inf)


@dataclasses.dataclass(frozen=True)
class OtherConfig(GroupConfig):
    """Keys under `optim.other`: a third optimizer, for an experiment."""

    pattern: str = key(
        "", "regular expression for paths of the parameters to train with this optimizer, such as "
        "encoder/embed; empty: none",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class OptimConfig(GroupConfig):
    """Keys under `optim`."""

    name: str = key(
        "scale_invariant_sgd", "optimizer of the encoder; see docs/optimizers.md",
        choices=tuple(TABLE),
    )  # fmt: skip
    eta_lambda: float = key(
        3.3e-3, "learning rate times weight decay, η·λ; sets both from the first gradients so "
        "that scale_invariant_sgd, equilibrium_sgd or orthogonalized_sgd starts at equilibrium; "
        "paper: 8e-6, short runs: up to about 5e-3; 0: use learning_rate and weight_decay", low=0,
        below=1,
    )  # fmt: skip
    blocks: str = key(
        "all", "which parameters share a norm, in optimizers that use norms; all: all of them "
        "(hyperball: each array has its own); tensor: each tensor of each layer, a kernel with "
        "its bias", choices=("all", "tensor"),
    )  # fmt: skip
    learning_rate: float = key(0.0, "peak learning rate η", low=0, below=math.inf)
    weight_decay: float = key(
        0.0, "weight decay λ; each update subtracts η·λ times the parameters", low=0, below=math.inf
    )
    clip_factor: float = key(
        4.0, "C in scale_invariant_sgd's gradient clip at √(2Cλ/η)·‖x‖, where 1 would be "
        "equilibrium; inf: no clipping", above=1,
    )  # fmt: skip
    max_grad_norm: float = key(
        0.0, "clip the gradient of the parameters trained by optim.name to this global norm; 0: "
        "no clipping", low=0,
    )  # fmt: skip
    schedule: str = key("cosine", "learning-rate schedule", choices=SCHEDULES)
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
            raise ConfigError(
                "optim.learning_rate and optim.eta_lambda are both 0; set learning_rate, or "
                "eta_lambda to have the rate computed."
            )
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
                f"optim.other.pattern={self.other.pattern!r} is not a valid regular expression: "
                f"{error}."
            ) from None

    @property
    def groups(self) -> dict[str, Any]:
        """The active sections by name."""
        groups = {"optim": self}
        if self.head.name != "same":
            groups["optim.head"] = self.head
        if self.other.pattern:
            groups["optim.other"] = self.other
        return groups

    @property
    def follows_theory(self) -> bool:
        """Whether the optimizer is SGD with weight decay for scale-invariant parameters."""
        return TABLE[self.name].follows_theory

    def with_warmup_steps(self, num_steps: int) -> "OptimConfig":
        """Returns the config with warm-up fractions converted to steps."""

        def in_steps(group, **changes):
            steps = group.warmup_steps or int(group.warmup_fraction * num_steps)
            return dataclasses.replace(group, warmup_steps=steps, warmup_fraction=0.0, **changes)

        return in_steps(self, head=in_steps(self.head), other=in_steps(self.other))

    def with_rates(self, learning_rate: float, weight_decay: float) -> "OptimConfig":
        """Returns the config with the η and λ found for `eta_lambda`."""
        return dataclasses.replace(
            self, eta_lambda=0.0, learning_rate=learning_rate, weight_decay=weight_decay
        )


def make_schedule(group: Any, peak_value: float, num_steps: int) -> optax.Schedule:
    """Returns the schedule η_t of a group of leaves, from the keys of its section."""
    return optim.make_schedule(
        group.schedule, peak_value=peak_value, num_steps=num_steps, warmup_steps=group.warmup_steps
    )


def decays(params: Any) -> Any:
    """Returns a mask, False on biases and gains, True on other leaves (Devlin et al. 2019)."""

    def is_matrix(path, _):
        return not path[-1].key.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)
