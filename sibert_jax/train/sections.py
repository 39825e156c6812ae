"""The config keys under `train`, `mesh` and `checkpoint`."""

import dataclasses
import math

from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.train.bad_steps import ACTIONS

WRITERS = ("tensorboard", "wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Keys under `train`."""

    num_steps: int = key(1000, "number of training steps; 0: use num_epochs", low=0, below=2**31)
    num_epochs: float = key(
        0.0, "passes over the training examples; 0: use num_steps", low=0, below=math.inf
    )
    extend: bool = key(
        False, "allow a resumed run to change its length, with the schedules of the new length",
        may_change=True,
    )  # fmt: skip
    global_batch_size: int = key(32, "examples per step, over all devices", low=1)
    microbatches: int = key(
        1, "gradient accumulation: number of parts that each batch is split into; must divide it",
        low=1,
    )  # fmt: skip
    log_every_steps: int = key(
        20, "steps between rows of metrics, which are means over these steps", low=1,
        may_change=True,
    )  # fmt: skip
    eval_every_steps: int = key(
        200, "steps between evaluations; 0: only after the last step", low=0, may_change=True
    )
    eval_batches: int = key(
        16, "maximum number of held-out batches per evaluation; 0: all", low=0, may_change=True
    )
    stop_after: int = key(
        0, "stop after this many evaluations in a row without a better main metric; 0: never",
        low=0, may_change=True,
    )  # fmt: skip
    writers: str = key(
        "tensorboard", "where else metrics are written besides metrics.jsonl, comma-separated: "
        "tensorboard, wandb, mlflow; empty: nowhere", may_change=True,
    )  # fmt: skip
    compilation_cache_dir: str = key(
        "~/.cache/sibert_jax/xla", "directory for cached compiled programs; empty: no cache",
        may_change=True, per_process=True,
    )  # fmt: skip
    on_bad_step: str = key(
        "stop", "what to do if the loss, gradient or update is not finite or the loss spikes: "
        "stop the run, skip the update, or rollback to a checkpoint and continue after the bad "
        "batch", choices=ACTIONS, may_change=True,
    )  # fmt: skip
    spike_factor: float = key(
        math.inf, "a loss above this multiple of its running mean counts as a spike; inf: none "
        "does", above=1, may_change=True,
    )  # fmt: skip
    max_skips_in_a_row: int = key(
        10, "with on_bad_step=skip: stop the run after more consecutive skips than this", low=0,
        may_change=True,
    )  # fmt: skip
    max_rollbacks: int = key(
        3, "with on_bad_step=rollback: stop the run after more rollbacks in total than this", low=0,
        may_change=True,
    )  # fmt: skip
    replay_every_steps: int = key(
        0, "compute every n-th step twice and compare the results bitwise; 0: never", low=0,
        may_change=True,
    )  # fmt: skip
    watchdog_secs: float = key(
        1800.0, "end the run if a step takes longer than this many seconds; 0: never", low=0,
        may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("train", self)
        if (self.num_steps > 0) == (self.num_epochs > 0):
            raise ConfigError(
                f"train.num_steps={self.num_steps} and train.num_epochs={self.num_epochs}: one of "
                "them must set the length of the run; set it above 0 and the other to 0."
            )
        for name in self.writer_names:
            if name not in WRITERS:
                raise ConfigError(
                    f"train.writers={self.writers!r}: {name!r} is unknown; choose from "
                    f"{', '.join(WRITERS)}, separated by commas."
                )

    @property
    def writer_names(self) -> tuple[str, ...]:
        """The names in `writers`."""
        return tuple(name.strip() for name in self.writers.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Keys under `mesh`: devices along each axis; -1: all remaining ones."""

    data: int = key(
        -1, "devices along the data axis, which splits the batch; -1: all remaining devices",
        may_change=True,
    )  # fmt: skip
    fsdp: int = key(
        1, "devices along the fsdp axis, which splits the batch and the parameters; -1: all "
        "remaining devices", may_change=True,
    )  # fmt: skip
    tensor: int = key(
        1, "devices along the tensor axis, which splits matrix products; -1: all remaining devices",
        may_change=True,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Keys under `checkpoint`."""

    every_steps: int = key(
        1000, "steps between checkpoints; one is also saved after the last step", low=1,
        may_change=True,
    )  # fmt: skip
    keep: int = key(3, "number of newest checkpoints to keep", low=1, may_change=True)
    keep_best: bool = key(
        False, "also save and keep the checkpoint of the best evaluation, by the task's main "
        "metric", may_change=True,
    )  # fmt: skip
    init_from: str = key(
        "", "workdir of a run whose encoder, parameters and vocabulary to start from; empty: "
        "start from scratch", may_change=True,
    )  # fmt: skip
    continue_from: str = key(
        "", "workdir of a run whose parameters, optimizer state and step to continue from in a "
        "new workdir; empty: none", may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("checkpoint", self)
        if self.init_from and self.continue_from:
            raise ConfigError(
                f"checkpoint.init_from={self.init_from} and checkpoint.continue_from="
                f"{self.continue_from} are both set; init_from takes parameters only, "
                "continue_from the optimizer state and the step too: give one of them."
            )
