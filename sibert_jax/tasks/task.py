"""The interface between tasks and the training loop."""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from sibert_jax.data import Tokenizer
from sibert_jax.model import Encoder, ModelConfig, reparametrize

Batch = dict[str, Any]  # of arrays with one row per example


class Batches(Protocol):
    """Batches as a pure function of the step; each batch has one of the task's seq_lens."""

    def __len__(self) -> int:
        """Returns the number of batches; training batches are endless and raise TypeError."""
        ...

    def batch(self, step: int, rows: slice) -> dict[str, np.ndarray]:
        """Returns the given rows of the global batch of one step."""
        ...


class HeldOut(NamedTuple):
    """A set of examples that are predicted after training."""

    name: str  # such as "dev"
    batches: Batches
    # From the results of `Task.eval_batch` on all batches, in order: writes the predictions into a
    # directory and returns the metrics ({} if no answers are known) and details that are not
    # floats.
    finish: Callable[[list[Any], pathlib.Path], dict[str, Any]]


class NewText(NamedTuple):
    """New text without labels, to be predicted."""

    batches: Batches
    # From the results of `Task.eval_batch` on all batches, in order: one record per example, in the
    # order of the text, with at least "prediction".
    records: Callable[[list[Any]], list[dict[str, Any]]]
    # From the records: lines of text to print.
    format: Callable[[list[dict[str, Any]]], list[str]]

    def lines(self, results: list[Any]) -> list[str]:
        """Returns the records as lines of text."""
        return self.format(self.records(results))


class TaskData(NamedTuple):
    """The examples that a task is trained and evaluated on."""

    train: Batches
    valid: Batches
    fingerprint: str  # changes whenever an example changes
    steps_per_epoch: int  # updates per pass over the training examples
    tokenizer: Tokenizer
    held_out: tuple[HeldOut, ...]
    main_metric: str  # a key of `Task.eval_metrics`
    lower_is_better: bool  # of the main metric


class EncoderWithHead(nn.Module):
    """Encoder and head; parameters under "encoder" and "head".

    The head takes x_BLD, the batch, the encoder's token table and `deterministic`.
    """

    cfg: ModelConfig
    head: nn.Module

    def setup(self):
        self.encoder = Encoder(self.cfg)

    def __call__(self, batch: Batch, *, deterministic: bool = True, place: jax.Array | int = 0):
        """Returns the head's outputs and dead_N; arguments as for `Encoder`."""
        arrays = (batch[name] for name in ("tokens", "segments", "attention_mask"))
        x_BLD, dead_N = self.encoder(
            *arrays,
            deterministic=deterministic,
            place=place,
            documents_BL=batch.get("documents"),  # of tasks that pack several documents into a row
        )
        table_VD = self.encoder.token_table()
        return self.head(x_BLD, batch, table_VD, deterministic=deterministic), dead_N


class Task(abc.ABC):
    """A model with its loss and its metrics, as pure functions of parameters and batch.

    A metric is a sum divided by a denominator. Both are additive over examples, so any split into
    microbatches or devices gives the same values up to rounding.

    Args:
      cfg: the encoder's config.
      head: see `EncoderWithHead`.
      seq_lens: the lengths that batches may have, ascending; each is compiled once.
      loss_scale: > 0, multiplies the loss that is differentiated.
      head_is_invariant: whether the head is scale invariant too.
    """

    loss_names: tuple[str, ...] = ()  # metrics whose sum is the loss
    labels: tuple[str, ...] = ()  # names of the head's outputs; () if they have none
    # (a, b): a + b·output is a score in the unit of the data; None: the output is not a score.
    score_map: tuple[float, float] | None = None
    problem: str = ""  # a sentence on why the head's outputs cannot be used; "" if they can

    def __init__(
        self,
        cfg: ModelConfig,
        head: nn.Module,
        *,
        seq_lens: tuple[int, ...],
        loss_scale: float,
        head_is_invariant: bool = False,
    ):
        self.cfg, self.model = cfg, EncoderWithHead(cfg, head)
        self.seq_lens, self.loss_scale = seq_lens, loss_scale
        self._head_is_invariant = head_is_invariant

    def abstract_batch(self, num_rows: int, seq_len: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns names, shapes and dtypes of a batch: the common arrays and the task's own."""
        by_token = {"tokens": jnp.int32, "segments": jnp.int32, "attention_mask": jnp.bool_}
        shapes = {name: ((num_rows, seq_len), dtype) for name, dtype in by_token.items()}
        shapes["example_weights"] = ((num_rows,), jnp.float32)
        shapes |= self.own_shapes(num_rows, seq_len)
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    @abc.abstractmethod
    def own_shapes(self, num_rows: int, seq_len: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns shape and dtype of the batch arrays that only this task has."""

    def save(self, directory: pathlib.Path) -> None:
        """Writes into a workdir what the model needs besides its parameters and config."""
        del directory

    def init(self, key: jax.Array, batch: Batch) -> Any:
        """Returns initial float32 parameters, {"encoder": ..., "head": ...}."""
        return self.model.init(key, batch)["params"]

    def invariance_mask(self, params: Any) -> Any:
        """Returns a tree of bools, True on the jointly scale-invariant leaves."""
        return {
            name: jax.tree.map(
                lambda _, inside=(name == "encoder" or self._head_is_invariant): inside, part
            )
            for name, part in params.items()
        }

    def apply(self, params: Any, batch: Batch, dropout_key: jax.Array | None = None):
        """Returns the head's outputs and dead_N (layers,); no dropout without a key."""
        if self.cfg.arch == "reparametrized":
            params = {**params, "encoder": reparametrize(params["encoder"], self.cfg.init_std)}
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        deterministic = dropout_key is None
        return self.model.apply({"params": params}, batch, deterministic=deterministic, rngs=rngs)

    @abc.abstractmethod
    def sums(
        self, params: Any, batch: Batch, dropout_key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Returns losses and "dead_attention_rows" summed over the batch: float32 scalars."""

    @abc.abstractmethod
    def denominators(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the divisors of `sums`: float32 scalars over the whole batch, possibly 0."""

    def attention_rows(self, batch: Batch) -> jax.Array:
        """Returns the denominator of "dead_attention_rows"."""
        tokens = jnp.sum(batch["attention_mask"], dtype=jnp.float32)
        return tokens * self.cfg.num_heads * self.cfg.depth

    @abc.abstractmethod
    def eval_batch(self, params: Any, batch: Batch) -> Any:
        """Returns what `eval_metrics` needs of one held-out batch, as any tree of arrays."""

    @abc.abstractmethod
    def eval_metrics(self, results: list[Any]) -> dict[str, float]:
        """Returns the metrics from the results of `eval_batch` on all held-out batches."""

    @abc.abstractmethod
    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward FLOPs per token, without recomputation."""


@dataclasses.dataclass(frozen=True)
class TaskType:
    """A type of task, as held by the registry.

    Attributes:
      config: dataclass of the keys under `task`.
      data: dataclass of the keys under `data`.
      seq_len: maximum length of an example if `data.seq_len` is None.
      make: creates the task without data, from (model, task, seq_lens): enough for shapes and
        compilation.
      load: creates the task and its data, from (model, task, data) and the keywords
        global_batch_size, seed and progress, which is called with messages.
      sharding: regular expression of a head parameter's path -> mesh axes of its last dimensions.
      defaults: task-specific defaults of other keys, such as {"optim.name": "lamb"}.
      check: raises ConfigError for incompatible keys, from (model, task, data).
      invariant_parts: from the task's config, "encoder", "head", both or neither: the parameters
        whose joint scale leaves the loss unchanged if the encoder's output is invariant.
      load_new_text: creates the task and a `NewText`, from (model, task, data, text, tokenizer) and
        the keywords global_batch_size, progress and workdir, where `text` is a file's path, or a
        list of texts or pairs; None: this task cannot predict.
      found_in_data: keys under `task` that, if (), are inferred from the training examples.
      find: returns the values of such keys, from (task, data) and a function for messages.
      restore: creates the task without data from what `Task.save` wrote, from (model, task,
        seq_lens, workdir); None: `make` suffices.
      is_causal: whether it needs a causal encoder; otherwise it needs a bidirectional one.
    """

    config: type
    data: type
    seq_len: int
    make: Callable[[ModelConfig, Any, tuple[int, ...]], Task]
    load: Callable[..., tuple[Task, TaskData]]
    sharding: tuple[tuple[str, PartitionSpec], ...]
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    check: Callable[[ModelConfig, Any, Any], None] = lambda model, task, data: None
    invariant_parts: Callable[[Any], tuple[str, ...]] = lambda task: ("encoder",)
    load_new_text: Callable[..., tuple[Task, NewText]] | None = None
    found_in_data: tuple[str, ...] = ()
    find: Callable[[Any, Any, Callable[[str], None]], Mapping[str, object]] | None = None
    restore: Callable[[ModelConfig, Any, tuple[int, ...], pathlib.Path], Task] | None = None
    is_causal: bool = False

    def of_workdir(
        self, model: ModelConfig, task: Any, seq_lens: tuple[int, ...], directory: pathlib.Path
    ) -> Task:
        """Returns the task of a finished run, without data."""
        if self.restore is None:
            return self.make(model, task, seq_lens)
        return self.restore(model, task, seq_lens, directory)
