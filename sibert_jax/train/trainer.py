"""The shapes of a run's arrays, and the programs compiled for them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax import homogeneity
from sibert_jax.checkpoint import Checkpoints
from sibert_jax.checkpoint.manifest import AVERAGES
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.task import Batch, Task
from sibert_jax.train import sharding
from sibert_jax.train.bad_steps import BadSteps
from sibert_jax.train.config import RunConfig
from sibert_jax.train.optimizer import build_optimizer
from sibert_jax.train.optimizer_table import averaged_params, has_average
from sibert_jax.train.step import Step, StepReport, TrainState

# Uses of the seed, so that no two share random bits.
INIT, DROPOUT = 0, 1


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes, dtypes and shardings of parameters and batches.

    Attributes:
      task: the task.
      mesh: the mesh of all shardings.
      batch_size: rows per global batch.
      params: ShapeDtypeStructs with shardings.
      mask: a tree of bools, True on the scale-invariant parameters.
    """

    task: Task
    mesh: Mesh
    batch_size: int
    params: Any
    mask: Any

    @classmethod
    def of(cls, run: RunConfig, mesh: Mesh, task: Task) -> "Shapes":
        """Returns the shapes for the task of a run on a mesh.

        Raises:
          ConfigError: batch or parameters are not divisible by the mesh.
        """
        check_divisible(run, mesh)
        row = task.abstract_batch(1, task.seq_lens[-1])
        abstract = jax.eval_shape(task.init, jax.random.key(0), row)
        shardings = sharding.param_shardings(abstract, mesh, run.task_type.sharding)
        params = sharding.placed(abstract, shardings)
        mask = task.invariance_mask(params)
        return cls(task, mesh, run.train.global_batch_size, params, mask)

    def batch(self, seq_len: int) -> Batch:
        """Returns an abstract global batch of one length."""
        where = sharding.batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
            for name, leaf in self.task.abstract_batch(self.batch_size, seq_len).items()
        }

    def longest_batch(self) -> Batch:
        """Returns an abstract global batch of the longest sequences."""
        return self.batch(self.task.seq_lens[-1])


class Programs:
    """A function of (tree, batch), compiled once per length on first use.

    The other sizes are fixed: another shape is an error, never a retrace.

    Args:
      fn: the function.
      shapes: the shapes of the batches.
      tree: its first argument, as ShapeDtypeStructs with shardings.
      **options: options of `jax.jit`.
    """

    def __init__(self, fn: Callable, shapes: Shapes, tree: Any, **options):
        self._jitted = jax.jit(sharding.on_mesh(fn, shapes.mesh), **options)
        self._shapes, self._tree = shapes, tree
        self._compiled: dict[int, jax.stages.Compiled] = {}

    def __call__(self, tree: Any, batch: Batch) -> Any:
        self.compile(batch)
        return self._compiled[_seq_len(batch)](tree, batch)

    def is_compiled(self, batch: Batch) -> bool:
        """Tells whether there is a program for the length of a batch."""
        return _seq_len(batch) in self._compiled

    def compile(self, batch: Batch) -> None:
        """Compiles for the length of a batch, unless already done."""
        if not self.is_compiled(batch):
            self._compiled[_seq_len(batch)] = self.lower(_seq_len(batch)).compile()

    def lower(self, seq_len: int, platforms: tuple[str, ...] | None = None) -> jax.stages.Lowered:
        """Lowers the program of one length; platforms None: those of the mesh."""
        traced = self._jitted.trace(self._tree, self._shapes.batch(seq_len))
        return traced.lower(lowering_platforms=platforms)


def _seq_len(batch: Batch) -> int:
    return batch["tokens"].shape[1]


class Trainer:
    """The compiled update of a run on its mesh; the caller owns the state.

    Args:
      run: the run, with its length in steps and learning rates set.
      shapes: shapes of its task.

    Raises:
      ConfigError: the loss is not scale invariant in the parameters declared invariant.
    """

    def __init__(self, run: RunConfig, shapes: Shapes):
        self.run, self.shapes, task = run, shapes, shapes.task
        if run.invariant_parts:
            _check_invariance(run, shapes)
        self.optimizer = build_optimizer(run.optim, run.train.num_steps, shapes.mask)
        c = run.train
        self.bad_steps = BadSteps(
            c.on_bad_step, c.spike_factor, c.max_skips_in_a_row, c.max_rollbacks
        )
        dropout_key = jax.random.fold_in(jax.random.key(run.seed), DROPOUT)
        step = Step(
            task=task,
            optimizer=self.optimizer,
            microbatches=c.microbatches,
            log_every_steps=c.log_every_steps,
            dropout_key=dropout_key if run.model.dropout > 0 else None,
            bad_steps=self.bad_steps,
        )
        abstract = jax.eval_shape(step.init, shapes.params)
        shardings = sharding.state_shardings(abstract, shapes.params, shapes.mesh)
        self.abstract_state: TrainState = sharding.placed(abstract, shardings)
        self._init = jax.jit(step.init, out_shardings=shardings)
        report = StepReport(abstract.window, abstract.health)
        replicated = jax.tree.map(lambda _: NamedSharding(shapes.mesh, P()), report)
        self.step = Programs(
            step.__call__,
            shapes,
            self.abstract_state,
            donate_argnums=0,
            out_shardings=(shardings, replicated),
        )

    def init(self, params: Any) -> TrainState:
        """Returns the state before the first update."""
        return self._init(params)

    def restore(self, checkpoints: Checkpoints, step: int) -> TrainState:
        """Restores the state of a checkpoint onto this mesh."""
        return state_of(*checkpoints.restore(step, *self.abstract_items()))

    def abstract_items(self) -> tuple[Any, dict]:
        """Returns the two trees of a checkpoint, parameters and the rest, as ShapeDtypeStructs."""
        like = self.abstract_state
        rest = _without_params(like)
        if has_average(like.opt_state):
            rest[AVERAGES] = like.params
        return like.params, rest

    def save(self, checkpoints: Checkpoints, state: TrainState, step: int, facts: dict) -> None:
        """Starts writing a checkpoint of everything that the next step depends on.

        Args:
          checkpoints: checkpoints of the run.
          state: the state after `step` updates.
          step: updates done.
          facts: facts about the run, for readers of the checkpoint.
        """
        rest = _without_params(state)
        if has_average(state.opt_state):
            rest[AVERAGES] = averaged_params(state.opt_state, state.params)
        checkpoints.save(step, state.params, rest, facts)


def state_of(params: Any, rest: dict) -> TrainState:
    """Assembles the state from the two trees of a checkpoint."""
    fields = {name: tree for name, tree in rest.items() if name != AVERAGES}
    return TrainState(params=params, **fields)


def _without_params(state: TrainState) -> dict:
    """Returns the fields of a state except the parameters, by name."""
    names = (field.name for field in dataclasses.fields(state) if field.name != "params")
    return {name: getattr(state, name) for name in names}


def _check_invariance(run: RunConfig, shapes: Shapes) -> None:
    """Proves that the loss is invariant to the scale of the leaves declared invariant."""
    task = analyzable_task(run, shapes.task)

    def losses(params, batch):
        sums = task.sums(params, batch)
        return [sums[name] for name in task.loss_names]

    try:
        homogeneity.assert_scale_invariant(
            losses, shapes.params, shapes.longest_batch(), mask=shapes.mask
        )
    except ValueError as error:
        raise ConfigError(f"model.arch={run.model.arch}: the loss is {error}") from None


def bare_task(run: RunConfig) -> Task:
    """Returns the task without data, which suffices for shapes, degrees and compilation."""
    return run.task_type.make(run.model, run.task, (run.data.seq_len,))


def analyzable_task(run: RunConfig, task: Task) -> Task:
    """Returns `task`, or if its attention is a kernel, the bare task with einsum attention.

    The degree analysis cannot see inside a kernel.
    """
    if run.model.attention_impl != "pallas":
        return task
    model = dataclasses.replace(run.model, attention_impl="einsum")
    return bare_task(dataclasses.replace(run, model=model))


def check_divisible(run: RunConfig, mesh: Mesh) -> None:
    """Raises ConfigError, with both numbers, if the batch is not divisible by the mesh."""
    batch, parts = run.train.global_batch_size, run.train.microbatches
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % (shards * parts):
        raise ConfigError(
            f"train.global_batch_size={batch} must be a multiple of mesh.data × mesh.fsdp × "
            f"train.microbatches = {mesh.shape['data']} × {mesh.shape['fsdp']} × {parts}."
        )


def check_kernels(run: RunConfig, mesh: Mesh) -> None:
    """Raises ConfigError for a kernel on unsupported devices."""
    platform = mesh.devices.flat[0].platform
    if run.model.attention_impl == "pallas" and platform not in ("tpu", "gpu"):
        raise ConfigError(
            f'model.attention_impl="pallas" is a kernel for TPUs and GPUs; the devices here are '
            f'{platform}; set it to "auto", which changes rounding only.'
        )
