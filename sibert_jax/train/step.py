"""One update as a pure function of (state, batch)."""

import dataclasses
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from sibert_jax import optim
from sibert_jax.tasks.task import Batch, Task
from sibert_jax.train.build import Recipe
from sibert_jax.train.health import BadSteps, Health, fresh_health


@flax.struct.dataclass
class Window:
    """Sums since the last logged step: part of the state, so that a resumed run logs the same."""

    count: jax.Array  # int32, steps in the sums; bad ones are left out
    sums: dict[str, jax.Array]  # float32 scalars


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds. `step` counts the updates, those that were discarded among them."""

    step: jax.Array  # int32
    params: Any
    opt_state: Any
    window: Window
    health: Health


class Report(NamedTuple):
    """What the loop reads of a step: copies that outlive the donation of the state."""

    window: Window
    health: Health


@dataclasses.dataclass(frozen=True)
class Step:
    """The update rule, closed over everything that stays the same during a run."""

    task: Task
    recipe: Recipe
    mask: Any  # True on scale-invariant leaves
    microbatches: int
    log_every_steps: int
    dropout_key: jax.Array | None
    bad_steps: BadSteps

    def init(self, params) -> TrainState:
        """The state before the first update."""
        sums = {name: jnp.zeros((), jnp.float32) for name in self.metric_names}
        zero = jnp.zeros((), jnp.int32)
        opt_state = self.recipe.tx.init(params)
        return TrainState(zero, params, opt_state, Window(zero, sums), fresh_health())

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Scalars measured at each step; the window holds their sums."""
        names = ("loss", *self.task.loss_names, "dead_attention_rows", "grad_norm", "param_norm")
        names += ("clip_ratio", "rotation", "euler_residual", "learning_rate")
        names += ("effective_learning_rate",)
        if self.recipe.predicts_equilibrium:
            names += ("sphere_grad_square",)
        if self.recipe.clip_factor is not None:
            names += ("clipped", "clip_threshold")
        return names

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Report]:
        """Applies one update.

        Args:
          state: donated by the caller.
          batch: a global batch, rows a multiple of `microbatches`.

        Returns:
          The next state, and what the loop reads of it.
        """
        key = None if self.dropout_key is None else jax.random.fold_in(self.dropout_key, state.step)
        grads, metrics = self.gradient(state.params, batch, key)
        updates, opt_state = self.recipe.tx.update(grads, state.opt_state, state.params)
        applied = state.step - state.health.skipped  # the optimizer's own count
        metrics |= self.measure(applied, state.params, grads, updates)
        # With one clip, the update of the invariant leaves is finite if `rotation` is.
        unknown = self._leaves(updates, invariant=False) if self.recipe.one_clip else updates
        norms = optax.tree.norm(grads), optax.tree.norm(unknown)
        seen = metrics["loss"], metrics["rotation"], metrics["euler_residual"], *norms
        finite = jnp.isfinite(jnp.stack(seen)).all()
        # Written after all that reads the old parameters, else XLA copies these first.
        params = _where(finite, optax.apply_updates(state.params, updates), state.params)
        step = state.step + 1
        bad, health = self.bad_steps.judge(state.health, step, metrics["loss"], finite)
        if self.bad_steps.action == "skip":
            params, opt_state = _where(bad, (state.params, state.opt_state), (params, opt_state))
        window = self._accumulate(state, bad, metrics)
        after = TrainState(step, params, opt_state, window, health)
        return after, jax.tree.map(jnp.copy, Report(window, health))

    def _accumulate(self, state: TrainState, bad: jax.Array, metrics) -> Window:
        # A logged window is complete; the next one starts from zero.
        fresh = state.step % self.log_every_steps == 0
        old, good = state.window, (~bad).astype(jnp.int32)
        sums = {
            name: jnp.where(fresh, 0.0, old.sums[name]) + jnp.where(bad, 0.0, metrics[name])
            for name in self.metric_names
        }
        return Window(count=jnp.where(fresh, 0, old.count) + good, sums=sums)

    def gradient(self, params, batch: Batch, key: jax.Array | None):
        """Gradient of loss_scale·loss over the whole batch, and the metrics of the loss.

        Each microbatch contributes its sums over the totals of the *batch*, so a part with more
        masked tokens weighs more and the split changes nothing but rounding (without dropout).
        """
        totals = {name: jnp.maximum(total, 1.0) for name, total in self.task.totals(batch).items()}

        def loss_fn(params, part, key):
            sums = self.task.sums(params, part, key)
            metrics = {name: value / totals[name] for name, value in sums.items()}
            metrics["loss"] = sum(metrics[name] for name in self.task.loss_names)
            return metrics["loss"] * self.task.loss_scale, metrics

        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        if self.microbatches == 1:
            (_, metrics), grads = value_and_grad(params, batch, key)
            return grads, metrics

        def accumulate(carry, part_and_index):
            part, index = part_and_index
            part_key = None if key is None else jax.random.fold_in(key, index)
            (_, metrics), grads = value_and_grad(params, part, part_key)
            return jax.tree.map(jnp.add, carry, (grads, metrics)), None

        parts = jax.tree.map(self._split, batch)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(lambda: value_and_grad(params, first, key))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[1], shapes[0][1]))
        indices = jnp.arange(self.microbatches)
        (grads, metrics), _ = jax.lax.scan(accumulate, zeros, (parts, indices))
        return grads, metrics

    def _split(self, rows: jax.Array) -> jax.Array:
        # Every device keeps rows of its own in every part, so splitting moves no data.
        parts = rows.reshape(-1, self.microbatches, *rows.shape[1:])
        return jnp.swapaxes(parts, 0, 1)

    def measure(self, step, params, grads, updates) -> dict[str, jax.Array]:
        """Norms, clip and rotation over the scale-invariant leaves (for BERT: the encoder's)."""
        x, g = self._leaves(params, invariant=True), self._leaves(grads, invariant=True)
        x_norm, g_norm = optax.tree.norm(x), optax.tree.norm(g)
        cosine = optim.radial_cosine(x, g)
        learning_rate = jnp.asarray(self.recipe.learning_rate(step), jnp.float32)
        metrics = {
            "param_norm": x_norm,
            "grad_norm": g_norm,
            "clip_ratio": _divide(g_norm, x_norm),
            "euler_residual": jnp.abs(cosine),
            "learning_rate": learning_rate,
            "effective_learning_rate": optim.effective_learning_rate(learning_rate, x),
        }
        clipped_norm = g_norm
        if self.recipe.clip_factor is not None:
            threshold = optim.equilibrium.clip_threshold(
                learning_rate, self.recipe.weight_decay, self.recipe.clip_factor
            )
            clipped_norm = jnp.minimum(g_norm, threshold * x_norm)
            metrics["clip_threshold"] = threshold
            metrics["clipped"] = (g_norm > threshold * x_norm).astype(jnp.float32)
        if self.recipe.one_clip:
            metrics["rotation"] = optim.sgd_rotation(
                learning_rate, self.recipe.weight_decay, x_norm, clipped_norm, cosine
            )
        else:
            metrics["rotation"] = optim.rotation(x, self._leaves(updates, invariant=True))
        # ‖∇L(x/‖x‖)‖² after the clip: what the equilibrium norm follows from.
        metrics["sphere_grad_square"] = jnp.square(x_norm * clipped_norm)
        return metrics

    def _leaves(self, tree, *, invariant: bool) -> list[jax.Array]:
        leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(self.mask))
        return [leaf for leaf, inside in leaves if inside == invariant]


def _where(condition: jax.Array, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
