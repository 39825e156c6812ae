"""The interface between tasks and the training loop, which knows nothing else about a task."""

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

Batch = dict[str, Any]  # of arrays with one row an example


class Batches(Protocol):
    """Batches as a pure function of the step; all rows of one have one of the task's seq_lens."""

    def __len__(self) -> int:
        """The number of batches; those for training have no end and raise TypeError."""
        ...

    def batch(self, step: int, rows: slice) -> dict[str, np.ndarray]:
        """The given rows of the global batch of one step."""
        ...


class HeldOut(NamedTuple):
    """Examples that are predicted, all of them, once training is done."""

    name: str  # such as "dev"
    batches: Batches
    # From the results of `Task.eval_batch` on all the batches, in order: writes the predictions
    # into a directory and returns the metrics, {} where no answers are known, and details of them
    # that are no floats.
    finish: Callable[[list[Any], pathlib.Path], dict[str, Any]]


class NewText(NamedTuple):
    """Text without answers, as a user would try a model on it."""

    batches: Batches
    # From the results of `Task.eval_batch` on all the batches, in order: a record an example, in
    # the order of the text, with at least "prediction".
    records: Callable[[list[Any]], list[dict[str, Any]]]
    # From the records: lines of text to print.
    format: Callable[[list[dict[str, Any]]], list[str]]

    def lines(self, results: list[Any]) -> list[str]:
        """The records as lines of text."""
        return self.format(self.records(results))


class TaskData(NamedTuple):
    """The examples that a task is trained and evaluated on."""

    train: Batches
    valid: Batches
    fingerprint: str  # changes whenever an example would
    steps_per_epoch: int  # updates that see every training example once
    tokenizer: Tokenizer
    held_out: tuple[HeldOut, ...]
    main_metric: str  # of `Task.eval_metrics`
    lower_is_better: bool  # of the main metric


class EncoderWithHead(nn.Module):
    """Encoder and head; parameters under "encoder" and "head".

    The head is called with x_BLD, the batch, the encoder's token table and `deterministic`.
    """

    cfg: ModelConfig
    head: nn.Module

    def setup(self):
        self.encoder = Encoder(self.cfg)

    def __call__(self, batch: Batch, *, deterministic: bool = True, place: jax.Array | int = 0):
        """Returns the head's outputs and dead_N; arguments as of `Encoder`."""
        arrays = (batch[name] for name in ("tokens", "segments", "attention_mask"))
        x_BLD, dead_N = self.encoder(
            *arrays,
            deterministic=deterministic,
            place=place,
            documents_BL=batch.get("documents"),  # of tasks that pack several into a row
        )
        table_VD = self.encoder.token_table()
        return self.head(x_BLD, batch, table_VD, deterministic=deterministic), dead_N


class Task(abc.ABC):
    """A model with its loss and its metrics, as pure functions of parameters and batch.

    A metric is a sum over a denominator. Both add over examples, so that any split into
    microbatches or devices gives the same figures but for rounding.

    Args:
      cfg: sizes of the encoder.
      head: see `EncoderWithHead`.
      seq_lens: lengths that a batch may have, ascending; each is compiled once.
      loss_scale: > 0, multiplies the loss that is differentiated.
      head_is_invariant: whether the head is scale invariant too.
    """

    loss_names: tuple[str, ...] = ()  # metrics whose sum is the loss
    labels: tuple[str, ...] = ()  # meaning of the outputs of the head; () where they have no names
    # (a, b): a + b·output is a score in the unit of the data; None: the output is no score.
    score_map: tuple[float, float] | None = None
    problem: str = ""  # why the outputs of the head cannot be used, a sentence; "": they can

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
        """Names, shapes and dtypes of a batch: those of every task, and its own."""
        by_token = {"tokens": jnp.int32, "segments": jnp.int32, "attention_mask": jnp.bool_}
        shapes = {name: ((num_rows, seq_len), dtype) for name, dtype in by_token.items()}
        shapes["example_weights"] = ((num_rows,), jnp.float32)
        shapes |= self.own_shapes(num_rows, seq_len)
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    @abc.abstractmethod
    def own_shapes(self, num_rows: int, seq_len: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of the arrays of a batch that only this task has."""

    def save(self, directory: pathlib.Path) -> None:
        """Writes into a workdir what the model needs besides its parameters and its config."""
        del directory

    def init(self, key: jax.Array, batch: Batch) -> Any:
        """Fresh float32 parameters {"encoder": ..., "head": ...}; `batch` gives the shapes."""
        return self.model.init(key, batch)["params"]

    def invariance_mask(self, params: Any) -> Any:
        """True on the leaves that are jointly scale invariant, False on the others."""
        return {
            name: jax.tree.map(
                lambda _, inside=(name == "encoder" or self._head_is_invariant): inside, part
            )
            for name, part in params.items()
        }

    def apply(self, params: Any, batch: Batch, dropout_key: jax.Array | None = None):
        """Outputs of the head, and dead_N: float32 (layers,). No dropout without a key."""
        if self.cfg.arch == "reparametrized":
            params = {**params, "encoder": reparametrize(params["encoder"], self.cfg.init_std)}
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        deterministic = dropout_key is None
        return self.model.apply({"params": params}, batch, deterministic=deterministic, rngs=rngs)

    @abc.abstractmethod
    def sums(
        self, params: Any, batch: Batch, dropout_key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Summed losses, and "dead_attention_rows", over the batch: float32 scalars."""

    @abc.abstractmethod
    def denominators(self, batch: Batch) -> dict[str, jax.Array]:
        """Divisors of `sums`: float32 scalars of the whole batch, may be 0."""

    def attention_rows(self, batch: Batch) -> jax.Array:
        """Denominator of "dead_attention_rows"."""
        tokens = jnp.sum(batch["attention_mask"], dtype=jnp.float32)
        return tokens * self.cfg.num_heads * self.cfg.depth

    @abc.abstractmethod
    def eval_batch(self, params: Any, batch: Batch) -> Any:
        """All that `eval_metrics` needs of one held-out batch; compiled, so any tree of arrays."""

    @abc.abstractmethod
    def eval_metrics(self, results: list[Any]) -> dict[str, float]:
        """Metrics of all held-out batches, from the results of `eval_batch` on the host."""

    @abc.abstractmethod
    def flops_per_token(self, seq_len: int) -> float:
        """Forward and backward, model only: recomputation does not count."""


@dataclasses.dataclass(frozen=True)
class TaskType:
    """A kind of task, as the registry holds it.

    Attributes:
      config: dataclass of the keys under `task`.
      data: dataclass of the keys under `data`.
      seq_len: most tokens of an example where `data.seq_len` is None.
      make: the task without data, from (model, task, seq_lens): enough for shapes and compilation.
      load: the task and its data, from (model, task, data) and the keywords global_batch_size,
        seed and progress, which takes a line of text.
      sharding: regular expression of a head parameter's path -> mesh axes of its last dimensions.
      defaults: keys outside of `task` and `data` with another default, as {"optim.name": "lamb"}.
      check: raises ConfigError for keys that do not fit, from (model, task, data).
      invariant_parts: "encoder", "head", both or neither: the parameters in whose joint scale the
        loss is invariant if the encoder's output is; from the keys under `task`.
      load_new_text: the task and text without answers, from (model, task, data, text, tokenizer)
        and the keywords global_batch_size, progress and workdir, where `text` is the path of a
        file, or a list of texts, or of pairs of them; None: this kind answers nothing.
      found_in_data: keys under `task` that are open where they are (), and then found in the
        training examples.
      find: values of those that are open, from (task, data) and a function that takes a line.
      restore: the task without data as `Task.save` left it, from (model, task, seq_lens, workdir);
        None: `make` is enough.
      is_causal: whether it needs an encoder that attends to earlier tokens only, and to the token
        itself; else it needs one that attends to both sides.
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
        """The task of a finished run, without data."""
        if self.restore is None:
            return self.make(model, task, seq_lens)
        return self.restore(model, task, seq_lens, directory)
