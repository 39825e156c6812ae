"""A run's settings as frozen dataclasses without defaults: unknown or missing keys fail here."""

import dataclasses
import math

from sibert_jax.data import CorpusSpec, FinetuningSpec
from sibert_jax.errors import ConfigError
from sibert_jax.keys import at_least, check_fraction, one_of
from sibert_jax.model import ModelConfig
from sibert_jax.runtime.settings import DistributedConfig
from sibert_jax.tasks.classification import ClassificationConfig
from sibert_jax.tasks.pretraining import PretrainingConfig
from sibert_jax.tasks.question_answering.load import QuestionAnsweringSpec
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig
from sibert_jax.train import health

SCHEDULES = ("constant", "piecewise", "linear", "cosine", "warmup_stable_decay")


@dataclasses.dataclass(frozen=True)
class HeadOptimConfig:
    """Keys under `optim.head`; their units are in defaults.py, as for the classes below."""

    name: str
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_steps: int  # 0 where warmup_fraction says it
    warmup_fraction: float  # of num_steps, which `with_num_steps` turns into warmup_steps
    b1: float
    b2: float
    eps: float

    def __post_init__(self):
        one_of("optim.head.name", self.name, ("lamb", "adamw", "sgd", "recipe"))
        one_of("optim.head.schedule", self.schedule, SCHEDULES)
        at_least("optim.head", self, 0, "learning_rate", "weight_decay", "warmup_steps", "eps")
        check_fraction("optim.head.warmup_fraction", self.warmup_fraction)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Keys under `optim`."""

    name: str
    eta_lambda: float
    learning_rate: float
    weight_decay: float
    clip_factor: float
    schedule: str
    warmup_steps: int  # as for the head
    warmup_fraction: float
    b1: float
    b2: float
    eps: float
    max_grad_norm: float
    head: HeadOptimConfig

    def __post_init__(self):
        one_of("optim.name", self.name, ("scale_invariant_sgd", "adamw", "lamb"))
        one_of("optim.schedule", self.schedule, SCHEDULES)
        at_least("optim", self, 0, "eta_lambda", "learning_rate", "weight_decay", "warmup_steps")
        at_least("optim", self, 0, "eps", "max_grad_norm")
        check_fraction("optim.warmup_fraction", self.warmup_fraction)
        given = self.learning_rate > 0 or self.weight_decay > 0
        if self.eta_lambda > 0 and given:
            raise ConfigError(
                f"optim.eta_lambda={self.eta_lambda} sets both η and λ, but optim.learning_rate="
                f"{self.learning_rate} and optim.weight_decay={self.weight_decay} are given too; "
                "set eta_lambda to 0, or both of them to 0."
            )
        if self.eta_lambda == 0 and self.learning_rate == 0:
            raise ConfigError("optim: give learning_rate > 0, or eta_lambda > 0 to have it found.")
        if self.eta_lambda >= 1:
            raise ConfigError(
                f"optim.eta_lambda={self.eta_lambda} must be below 1; the paper has 8e-6 and "
                "short runs up to about 5e-3."
            )
        if self.name != "scale_invariant_sgd" and self.eta_lambda > 0:
            raise ConfigError(
                f"optim.eta_lambda is for scale_invariant_sgd; with optim.name={self.name} set it "
                "to 0 and give learning_rate and weight_decay."
            )
        if not self.clip_factor > 1:
            raise ConfigError(
                f"optim.clip_factor={self.clip_factor} must be above 1 (the paper: 4), or inf for "
                "no clip; at 1 even a run at equilibrium would be clipped."
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Keys under `train`."""

    num_steps: int  # 0 where num_epochs says it, until `with_num_steps` knows the data
    num_epochs: float
    extend: bool
    global_batch_size: int
    microbatches: int
    log_every_steps: int
    eval_every_steps: int
    eval_batches: int
    compilation_cache_dir: str
    on_bad_step: str
    spike_factor: float
    max_skips_in_a_row: int
    max_rollbacks: int
    replay_every_steps: int
    watchdog_secs: float

    def __post_init__(self):
        at_least("train", self, 1, "global_batch_size", "microbatches", "log_every_steps")
        at_least("train", self, 0, "eval_every_steps", "eval_batches", "max_skips_in_a_row")
        at_least("train", self, 0, "max_rollbacks")
        at_least("train", self, 0, "replay_every_steps", "watchdog_secs")
        one_of("train.on_bad_step", self.on_bad_step, health.ACTIONS)
        if not self.spike_factor > 1:
            raise ConfigError(
                f"train.spike_factor={self.spike_factor} must be above 1, or inf to let the loss "
                "jump; at 1 every second step would be bad."
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Keys under `mesh`."""

    data: int
    fsdp: int
    tensor: int


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Keys under `checkpoint`."""

    every_steps: int
    keep: int
    init_from: str

    def __post_init__(self):
        at_least("checkpoint", self, 1, "every_steps", "keep")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run is a function of."""

    seed: int
    init_scale: float
    task: PretrainingConfig | ClassificationConfig | QuestionAnsweringConfig
    model: ModelConfig
    data: CorpusSpec | FinetuningSpec | QuestionAnsweringSpec
    seq_len: int
    optim: OptimConfig
    train: TrainConfig
    mesh: MeshConfig
    distributed: DistributedConfig
    checkpoint: CheckpointConfig

    def __post_init__(self):
        if not 0 < self.init_scale < math.inf:
            raise ConfigError(f"init_scale={self.init_scale} must be positive and finite.")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be >= 0.")
        if not 8 <= self.seq_len <= self.model.max_len:
            raise ConfigError(
                f"data.seq_len={self.seq_len} must lie between 8 and model.max_len="
                f"{self.model.max_len}, the rows of the position table."
            )
        if isinstance(self.task, QuestionAnsweringConfig):
            self._check_question_answering(self.task)
        if isinstance(self.task, PretrainingConfig):
            at_least("train", self.train, 1, "num_steps")
            self._check_pretraining(self.task)
        elif not 0 < (num_epochs := self.train.num_epochs) < math.inf:
            raise ConfigError(f"train.num_epochs={num_epochs} must be positive and finite.")
        elif self.optim.name == "scale_invariant_sgd" and self.optim.head.name == "recipe":
            raise ConfigError(
                f'optim.head.name="recipe" with task.name={self.task.name!r}: its head is not '
                'scale invariant; choose "lamb", "adamw" or "sgd".'
            )

    def _check_pretraining(self, task: PretrainingConfig) -> None:
        normalized, recipe = task.head == "normalized", self.optim.head.name == "recipe"
        if self.optim.name == "scale_invariant_sgd" and normalized != recipe:
            raise ConfigError(
                f"task.head={task.head!r} with optim.head.name={self.optim.head.name!r}: the "
                'normalized head is scale invariant and goes with "recipe", the others do not.'
            )
        if task.nsp and self.model.num_segments < 2:
            raise ConfigError(
                f"task.nsp=True needs model.num_segments=2, found {self.model.num_segments}: the "
                "two sentences are told apart by the segment table."
            )
        if task.head == "tied" and self.model.arch.startswith("sibert"):
            raise ConfigError(
                'task.head="tied" makes the logits grow with the token table, so the loss is no '
                f"longer scale invariant in the encoder of model.arch={self.model.arch}; use "
                '"untied" or "normalized".'
            )

    def _check_question_answering(self, task: QuestionAnsweringConfig) -> None:
        room = self.seq_len - task.max_query_len - 3
        if room < 1:
            raise ConfigError(
                f"data.seq_len={self.seq_len} leaves no room for a context beside a question of "
                f"task.max_query_len={task.max_query_len} and three special tokens; raise the "
                "former or lower the latter."
            )

    def with_num_steps(self, steps_per_epoch: int) -> "RunConfig":
        """The same run with its epochs and shares of warm-up as numbers of steps."""
        if self.train.num_epochs == 0:
            return self
        num_steps = max(1, round(self.train.num_epochs * steps_per_epoch))

        def timed(c):
            return dataclasses.replace(c, warmup_steps=int(c.warmup_fraction * num_steps))

        head = timed(self.optim.head)
        return dataclasses.replace(
            self,
            optim=dataclasses.replace(timed(self.optim), head=head),
            train=dataclasses.replace(self.train, num_steps=num_steps),
        )
