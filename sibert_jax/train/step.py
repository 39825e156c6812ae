"""One update as a pure function of (state, batch)."""

import dataclasses
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from sibert_jax.tasks.task import Batch, Task
from sibert_jax.train.bad_steps import BadSteps, Health, fresh_health
from sibert_jax.train.diagnostics import leaves_where, measure, metric_names
from sibert_jax.train.optimizer import Optimizer


@flax.struct.dataclass
class Window:
    """Sums since the last logged step; part of the state, so that a resumed run logs the same."""

    count: jax.Array  # int32, steps in the sums, without bad ones
    sums: dict[str, jax.Array]  # float32 scalars


@flax.struct.dataclass
class TrainState:
    """The contents of a checkpoint; `step` counts all updates, including discarded ones."""

    step: jax.Array  # int32
    params: Any
    opt_state: Any
    window: Window
    health: Health


class StepReport(NamedTuple):
    """What the loop reads after a step: copies that survive the donation of the state."""

    window: Window
    health: Health


@dataclasses.dataclass(frozen=True)
class Step:
    """The update rule, closed over everything that is constant during a run."""

    task: Task
    optimizer: Optimizer
    microbatches: int
    log_every_steps: int
    dropout_key: jax.Array | None
    bad_steps: BadSteps

    def init(self, params) -> TrainState:
        """Returns the state before the first update."""
        sums = {name: jnp.zeros((), jnp.float32) for name in self.metric_names}
        zero = jnp.zeros((), jnp.int32)
        opt_state = self.optimizer.tx.init(params)
        return TrainState(zero, params, opt_state, Window(zero, sums), fresh_health())

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The scalars measured at each step; the window holds their sums."""
        losses = ("loss", *self.task.loss_names, "dead_attention_rows")
        return (*losses, *metric_names(self.optimizer))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepReport]:
        """Applies one update.

        Args:
          state: the state, donated by the caller.
          batch: a global batch whose rows are a multiple of `microbatches`.

        Returns:
          The next state, and the report for the loop.
        """
        key = None if self.dropout_key is None else jax.random.fold_in(self.dropout_key, state.step)
        grads, metrics = gradient(self.task, state.params, batch, key, self.microbatches)
        updates, opt_state = self.optimizer.tx.update(grads, state.opt_state, state.params)
        applied = state.step - state.health.skipped  # the optimizer's own count
        metrics |= measure(self.optimizer, applied, state.params, grads, updates, opt_state)
        # With one block, the update of the measured leaves is finite if `rotation` is.
        unknown = updates
        if self.optimizer.is_one_block:
            unknown = leaves_where(self.optimizer.measured, updates, inside=False)
        norms = optax.tree.norm(grads), optax.tree.norm(unknown)
        seen = metrics["loss"], metrics["rotation"], metrics["euler_residual"], *norms
        finite = jnp.isfinite(jnp.stack(seen)).all()
        # Written after everything that reads the old parameters, to spare XLA a copy.
        params = _where(finite, optax.apply_updates(state.params, updates), state.params)
        step = state.step + 1
        bad, health = self.bad_steps.decide(state.health, step, metrics["loss"], finite)
        if self.bad_steps.action == "skip":
            params, opt_state = _where(bad, (state.params, state.opt_state), (params, opt_state))
        window = self._accumulate(state, bad, metrics)
        after = TrainState(step, params, opt_state, window, health)
        return after, jax.tree.map(jnp.copy, StepReport(window, health))

    def _accumulate(self, state: TrainState, bad: jax.Array, metrics) -> Window:
        # After a logged step the window starts from zero.
        fresh = state.step % self.log_every_steps == 0
        old, good = state.window, (~bad).astype(jnp.int32)
        sums = {
            name: jnp.where(fresh, 0.0, old.sums[name]) + jnp.where(bad, 0.0, metrics[name])
            for name in self.metric_names
        }
        return Window(count=jnp.where(fresh, 0, old.count) + good, sums=sums)


def gradient(task: Task, params, batch: Batch, key: jax.Array | None, microbatches: int):
    """Returns the gradient of loss_scale·loss over the whole batch, and the loss metrics.

    Each microbatch contributes its sums over the denominators of the *batch*, so a part with more
    masked tokens weighs more, and without dropout the split only affects rounding.
    """
    denominators = {name: jnp.maximum(n, 1.0) for name, n in task.denominators(batch).items()}

    def loss_fn(params, part, key):
        sums = task.sums(params, part, key)
        metrics = {name: value / denominators[name] for name, value in sums.items()}
        metrics["loss"] = sum(metrics[name] for name in task.loss_names)
        return metrics["loss"] * task.loss_scale, metrics

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if microbatches == 1:
        (_, metrics), grads = value_and_grad(params, batch, key)
        return grads, metrics

    def split(rows: jax.Array) -> jax.Array:
        # Every device has rows in every part, so splitting moves no data.
        return jnp.swapaxes(rows.reshape(-1, microbatches, *rows.shape[1:]), 0, 1)

    def accumulate(carry, part_and_index):
        part, index = part_and_index
        part_key = None if key is None else jax.random.fold_in(key, index)
        (_, metrics), grads = value_and_grad(params, part, part_key)
        return jax.tree.map(jnp.add, carry, (grads, metrics)), None

    parts = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda: value_and_grad(params, first, key))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[1], shapes[0][1]))
    (grads, metrics), _ = jax.lax.scan(accumulate, zeros, (parts, jnp.arange(microbatches)))
    return grads, metrics


def _where(condition: jax.Array, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
