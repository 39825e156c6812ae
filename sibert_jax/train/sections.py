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

    num_steps: int = key(1000, "updates; 0: num_epochs counts", low=0, below=2**31)
    num_epochs: float = key(
        0.0, "passes over the training examples; 0: num_steps counts", low=0, below=math.inf
    )
    extend: bool = key(
        False, "resume with another length, whose schedules are then used", may_change=True
    )
    global_batch_size: int = key(32, "examples of one update, over all devices", low=1)
    microbatches: int = key(1, "parts of a batch whose gradients are summed; divides it", low=1)
    log_every_steps: int = key(20, "window of the logged means", low=1, may_change=True)
    eval_every_steps: int = key(200, "0: only at the end", low=0, may_change=True)
    eval_batches: int = key(
        16, "most held-out batches of an evaluation; 0: all", low=0, may_change=True
    )
    stop_after: int = key(
        0, "evaluations in a row without a better main metric that end the run; 0: none do", low=0,
        may_change=True,
    )  # fmt: skip
    writers: str = key(
        "tensorboard", "of the rows of metrics.jsonl, comma-separated: tensorboard, wandb, mlflow; "
        "empty: none", may_change=True,
    )  # fmt: skip
    compilation_cache_dir: str = key(
        "~/.cache/sibert_jax/xla", "of compiled programs; empty: none",
        may_change=True, per_process=True,
    )  # fmt: skip
    on_bad_step: str = key(
        "stop", "where loss, gradient or update is not finite, or the loss spikes: stop, skip the "
        "update, or rollback to a checkpoint and past its data", choices=ACTIONS, may_change=True,
    )  # fmt: skip
    spike_factor: float = key(
        math.inf, "of the loss over its running mean; inf: no spikes", above=1, may_change=True
    )
    max_skips_in_a_row: int = key(10, "more of them stop the run; for skip", low=0, may_change=True)
    max_rollbacks: int = key(
        3, "of the whole run, one more stops it; for rollback", low=0, may_change=True
    )
    replay_every_steps: int = key(
        0, "compute each such step twice and compare the bits; 0: never", low=0, may_change=True
    )
    watchdog_secs: float = key(
        1800.0, "a step that takes longer ends the run, seconds; 0: never", low=0, may_change=True
    )

    def __post_init__(self):
        check("train", self)
        if (self.num_steps > 0) == (self.num_epochs > 0):
            raise ConfigError(
                f"train.num_steps={self.num_steps} and train.num_epochs={self.num_epochs}: one of "
                "them says the length of the run, so set the other to 0."
            )
        for name in self.writer_names:
            if name not in WRITERS:
                raise ConfigError(
                    f"train.writers={self.writers!r}: {name!r} is unknown; choose of "
                    f"{', '.join(WRITERS)}, separated by commas."
                )

    @property
    def writer_names(self) -> tuple[str, ...]:
        """The names in `writers`."""
        return tuple(name.strip() for name in self.writers.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Keys under `mesh`: devices along each axis; -1: all remaining ones."""

    data: int = key(-1, "copies of the model, over which the batch is split", may_change=True)
    fsdp: int = key(1, "parts of the parameters, over which the batch is split", may_change=True)
    tensor: int = key(1, "parts of the matrix products", may_change=True)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Keys under `checkpoint`."""

    every_steps: int = key(
        1000, "steps between checkpoints; the last step has one too", low=1, may_change=True
    )
    keep: int = key(3, "newest checkpoints kept", low=1, may_change=True)
    keep_best: bool = key(
        False, "save and keep that of the best evaluation too, by the main metric of the task",
        may_change=True,
    )  # fmt: skip
    init_from: str = key(
        "", "workdir to start the parameters from, with its encoder and vocabulary; empty: fresh",
        may_change=True,
    )  # fmt: skip
    continue_from: str = key(
        "", "workdir to continue in this one: parameters, optimizer state and step; empty: none",
        may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("checkpoint", self)
        if self.init_from and self.continue_from:
            raise ConfigError(
                f"checkpoint.init_from={self.init_from} and checkpoint.continue_from="
                f"{self.continue_from} are both set; init_from takes parameters only, "
                "continue_from the optimizer state and the step too: give one of them."
            )
