"""The config of a run: one frozen dataclass per section, and the defaults."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, from_dict, key, named
from sibert_jax.model import ARCHS, ModelConfig
from sibert_jax.runtime.settings import DistributedConfig
from sibert_jax.tasks.registry import task_type
from sibert_jax.tasks.task import TaskType
from sibert_jax.train.optim_config import OptimConfig, make_schedule
from sibert_jax.train.sections import CheckpointConfig, MeshConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run."""

    seed: int = key(
        0, "random seed: initial parameters, order of examples, masks and dropout", low=0,
        below=2**63,
    )  # fmt: skip
    init_scale: float = key(
        1.0, "factor on the initial scale-invariant parameters (encoder, invariant head)", above=0,
        below=math.inf,
    )  # fmt: skip
    task: Any = None  # TaskType.config
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: Any = None  # TaskType.data
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def __post_init__(self):
        check("", self)
        if not 8 <= self.data.seq_len <= self.model.max_len:
            raise ConfigError(
                f"data.seq_len={self.data.seq_len} must lie between 8 and "
                f"model.max_len={self.model.max_len}, the maximum sequence length."
            )
        found = f"model.arch is {self.model.arch!r}"
        check_direction(self.task.name, self.model.arch, found, "set it to one of")
        self.task_type.check(self.model, self.task, self.data)
        self._check_invariance()
        if self.train.num_steps:
            self._check_schedules()

    @property
    def invariant_parts(self) -> tuple[str, ...]:
        """The parts whose joint scale leaves the loss unchanged: "encoder", "head" or both."""
        parts = self.task_type.invariant_parts(self.task)
        return parts if self.model.is_scale_invariant else ()

    def _check_invariance(self) -> None:
        """Raises ConfigError if the recipe is used although the loss is not scale invariant."""
        if not (self.model.is_scale_invariant and self.optim.follows_theory):
            return
        if "encoder" not in self.invariant_parts:
            raise ConfigError(
                f'task.head="{self.task.head}" makes the logits grow with the token table, so the '
                f"loss is not scale invariant in the encoder of model.arch={self.model.arch}, "
                f'which optim.name="{self.optim.name}" requires; choose another head.'
            )
        if self.optim.head.name == "same" and "head" not in self.invariant_parts:
            raise ConfigError(
                f'optim.head.name="same" with optim.name={self.optim.name!r}: the head of this '
                f'{self.task.name} task is not scale invariant; set task.head="invariant", or '
                'give it an optimizer of its own, such as "lamb".'
            )

    def _check_schedules(self) -> None:
        optim, num_steps = self.optim.with_warmup_steps(self.train.num_steps), self.train.num_steps
        for section, group in optim.groups.items():
            try:
                make_schedule(group, 1.0, num_steps)
            except ValueError as error:
                raise ConfigError(
                    f"{section}.schedule={group.schedule!r}, {section}.warmup_steps="
                    f"{group.warmup_steps} and train.num_steps={num_steps} do not fit: {error}"
                ) from None

    @property
    def task_type(self) -> TaskType:
        """The type of the task."""
        return task_type(self.task.name)

    def with_num_steps(self, steps_per_epoch: int) -> "RunConfig":
        """Returns the same run with length and warm-up in steps."""
        num_steps = self.train.num_steps or max(1, round(self.train.num_epochs * steps_per_epoch))
        train = dataclasses.replace(self.train, num_steps=num_steps, num_epochs=0.0)
        optim = self.optim.with_warmup_steps(num_steps)
        return dataclasses.replace(self, optim=optim, train=train)


def run_config(config: ml_collections.ConfigDict | Mapping) -> RunConfig:
    """Builds a `RunConfig`, checking every key and combination of keys.

    Args:
      config: the result of `resolve`, or of `dataclasses.asdict` on a `RunConfig`.

    Raises:
      ConfigError: one sentence, naming the key.
    """
    values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    kind = task_type(_task_name(values))
    return from_dict(RunConfig, values, task=kind.config, data=kind.data)


def distributed_config(config: ml_collections.ConfigDict) -> DistributedConfig:
    """Returns the keys for joining processes, checked before all others can be."""
    values = config.to_dict()
    if "distributed" not in values:
        raise ConfigError("distributed is missing; start from default_config().")
    return from_dict(DistributedConfig, values["distributed"], "distributed")


def check_direction(task_name: str, arch: str, found: str, remedy: str) -> None:
    """Raises ConfigError for a causal encoder in a bidirectional task, and the reverse.

    Args:
      task_name: the value of `task.name`.
      arch: the value of `model.arch`.
      found: where that value was found; the beginning of the message.
      remedy: what to do; followed in the message by the fitting architectures.

    Raises:
      ConfigError: the encoder does not fit.
    """
    is_causal = task_type(task_name).is_causal
    if ARCHS[arch].is_causal == is_causal:
        return
    fitting = ", ".join(name for name, other in ARCHS.items() if other.is_causal == is_causal)
    sees = "only itself and earlier ones" if is_causal else "the tokens on both sides"
    raise ConfigError(
        f"{found}, and task.name={task_name!r} needs an encoder in which a token attends to "
        f"{sees}; {remedy} {fitting}."
    )


def default_config(task_name: str = "pretraining") -> ml_collections.ConfigDict:
    """Returns every key of a run with its default, the starting point of a config file.

    Pretraining: a mini SIBERT trained by SGD on text found on this machine. Fine-tuning: LAMB on
    all parameters for three epochs, as in the paper. Keys that are None are filled in from
    `checkpoint.init_from` or with the default of a fresh encoder: see `resolve`.

    Args:
      task_name: a key of tasks/registry.py, such as "causal_lm".

    Example:
      >>> config = default_config()
      >>> config.model.width = 256
    """
    kind = task_type(task_name)
    config = _defaults(RunConfig, task=kind.config, data=kind.data)
    config.update_from_flattened_dict(kind.defaults)
    return config


def _defaults(cls: type, **classes: type) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    for field in dataclasses.fields(cls):
        kind = classes.get(field.name, field.type)
        if dataclasses.is_dataclass(kind):
            config[field.name] = _defaults(kind)
        elif field.metadata["inherited"]:
            config[field.name] = placeholder(kind)
        elif kind == (int | None):
            config[field.name] = placeholder(int)
        else:
            config[field.name] = field.default
    return config


def keys_where(flag: str, settings: Mapping) -> set[str]:
    """Returns the dotted names of the config keys with a given flag of `keys.key`."""
    kind = task_type(_task_name(settings))
    found = set(named(RunConfig, flag))
    for section, cls in (("task", kind.config), ("data", kind.data)):
        found |= set(named(cls, flag, f"{section}."))
    return found


def _task_name(settings: Mapping) -> str:
    try:
        return settings["task"]["name"]
    except (KeyError, TypeError):
        raise ConfigError("task.name is missing; start from default_config().") from None
