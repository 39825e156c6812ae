"""What the training loop needs of a task; it knows no other word about pretraining or SQuAD."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sibert_jax.data import Tokenizer

Batch = dict[str, Any]  # of arrays with one row an example


class Task(Protocol):
    """A model with its loss and its metrics, as pure functions of parameters and batch.

    A metric is sum/total; both add over examples, so that any split into microbatches or devices
    gives the same figures but for rounding.
    """

    loss_names: tuple[str, ...]  # metrics whose sum is the loss
    labels: tuple[str, ...]  # what the outputs of head/classifier mean, in order; () without one
    loss_scale: float  # > 0, multiplies the loss that is differentiated
    seq_lens: tuple[int, ...]  # lengths that a batch may have, ascending; each is compiled once

    def abstract_batch(self, num_rows: int, seq_len: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Names, shapes and dtypes of a batch."""
        ...

    def init(self, key: jax.Array, batch: Batch) -> Any:
        """Fresh float32 parameters {"encoder": ..., "head": ...}; `batch` gives the shapes."""
        ...

    def invariance_mask(self, params: Any) -> Any:
        """True on the leaves that are jointly scale invariant, False on the others."""
        ...

    def sums(
        self, params: Any, batch: Batch, dropout_key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Summed losses, and "dead_attention_rows", over the batch: float32 scalars."""
        ...

    def totals(self, batch: Batch) -> dict[str, jax.Array]:
        """What each of `sums` is divided by: float32 scalars of the whole batch, may be 0."""
        ...

    def eval_batch(self, params: Any, batch: Batch) -> Any:
        """What `eval_metrics` needs of one held-out batch; compiled, so any tree of arrays."""
        ...

    def eval_metrics(self, results: list[Any]) -> dict[str, float]:
        """Metrics of all held-out batches, from the results of `eval_batch` on the host."""
        ...

    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward, model only: recomputation does not count."""
        ...


class Batches(Protocol):
    """Batches as a pure function of the step; all rows of one have one of the task's seq_lens."""

    def __len__(self) -> int:
        """How many there are; batches for training have no end and raise TypeError."""
        ...

    def batch(self, step: int, rows: slice) -> dict[str, np.ndarray]:
        """The given rows of the global batch of one step."""
        ...


class HeldOut(NamedTuple):
    """Examples that are predicted, all of them, once training is done."""

    name: str  # such as "dev"
    batches: Batches
    # From the results of `Task.eval_batch` on all the batches, in order: writes the predictions
    # into a directory and returns the metrics, {} where no answers are known.
    finish: Callable[[list[Any], pathlib.Path], dict[str, float]]


class NewText(NamedTuple):
    """Text without answers, as a user would try a model on it."""

    batches: Batches
    # From the results of `Task.eval_batch` on all the batches, in order: a header and a line an
    # example.
    lines: Callable[[list[Any]], list[str]]


class TaskData(NamedTuple):
    """What a task trains and is evaluated on."""

    train: Batches
    valid: Batches
    fingerprint: str  # changes whenever an example would
    steps_per_epoch: int  # updates that see every training example once
    tokenizer: Tokenizer
    held_out: tuple[HeldOut, ...]
    main_metric: str  # of `Task.eval_metrics`; of a loss the lowest is best, else the highest
