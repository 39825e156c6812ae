"""Bad steps: how they are found, skipped or stopped at; all of it inside the compiled step.

A step is bad when its loss, its gradient or its update is not finite, or when its loss exceeds
`spike_factor` times the running mean of the losses of the good steps before it.
"""

import dataclasses
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np

ACTIONS = ("stop", "skip", "rollback")
MEMORY = 100  # steps, the time constant of the running mean


@flax.struct.dataclass
class Health:
    """Scalars, checkpointed with the rest, so that a resumed run decides as the straight one."""

    loss_sum: jax.Array  # float32, of good steps, each older one weighing 1 − 1/MEMORY as much
    loss_weight: jax.Array  # float32, the sum of these weights; 0: no good step yet
    skipped: jax.Array  # int32, updates discarded
    skipped_in_a_row: jax.Array  # int32
    bad_step: jax.Array  # int32, the first step that must not be trained past; -1: none
    bad_loss: jax.Array  # float32, its loss
    batch_offset: jax.Array  # int32, batches passed over by rollbacks: update t has batch t + this
    rollbacks: jax.Array  # int32


def fresh_health() -> Health:
    """Before the first step."""
    zero, nothing = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    return Health(nothing, nothing, zero, zero, zero - 1, nothing, zero, zero)


@dataclasses.dataclass(frozen=True)
class BadSteps:
    """The policy of a run."""

    action: str  # one of ACTIONS
    spike_factor: float  # > 1; inf: losses may jump
    max_skips_in_a_row: int  # >= 0, for "skip"
    max_rollbacks: int  # >= 0, for "rollback"

    def decide(
        self, health: Health, step: jax.Array, loss: jax.Array, finite: jax.Array
    ) -> tuple[jax.Array, Health]:
        """Decides on one step.

        Args:
          health: before the step.
          step: int32, the number of this step, from 1.
          loss: float32 scalar.
          finite: bool scalar, whether loss, gradient and update are finite.

        Returns:
          Whether the step is bad, and the health after it. `bad_step` is set, and stays, at the
          first bad step; where updates are skipped, at the first that is one too many in a row.
        """
        mean = health.loss_sum / jnp.maximum(health.loss_weight, 1.0)
        spike = (health.loss_weight > 0) & (loss > self.spike_factor * mean)
        bad = ~finite | spike
        # A batch without a single target has the loss 0 and says nothing of the others.
        counts = ~bad & (loss > 0)
        decay = 1.0 - 1.0 / MEMORY
        in_a_row = jnp.where(bad, health.skipped_in_a_row + 1, 0)
        unforgiven, skipped = bad, health.skipped
        if self.action == "skip":
            unforgiven = in_a_row > self.max_skips_in_a_row
            skipped = skipped + bad.astype(jnp.int32)
        first = unforgiven & (health.bad_step < 0)
        return bad, health.replace(
            loss_sum=jnp.where(counts, decay * health.loss_sum + loss, health.loss_sum),
            loss_weight=jnp.where(counts, decay * health.loss_weight + 1.0, health.loss_weight),
            skipped=skipped,
            skipped_in_a_row=in_a_row,
            bad_step=jnp.where(first, step, health.bad_step),
            bad_loss=jnp.where(first, loss, health.bad_loss),
        )

    def sentence(self, health: Health) -> str:
        """Says what was wrong with `bad_step`, once it is set."""
        step, loss = int(health.bad_step), float(health.bad_loss)
        if math.isfinite(loss) and math.isfinite(self.spike_factor):
            wrong = (
                f"the loss at step {step} is {loss:.4g}, more than train.spike_factor="
                f"{self.spike_factor:g} times its running mean, or the gradient is not finite"
            )
        else:
            wrong = f"the loss, the gradient or the update at step {step} is not finite"
        match self.action:
            case "skip":
                wrong += f", after train.max_skips_in_a_row={self.max_skips_in_a_row} bad ones"
            case "rollback" if int(health.rollbacks) == self.max_rollbacks:
                wrong += f", after train.max_rollbacks={self.max_rollbacks} rollbacks"
        return wrong


def with_counts(health: Health, **counts: int) -> Health:
    """The same but for some counts, each where it was."""
    placed = {
        name: jax.device_put(np.asarray(count, np.int32), getattr(health, name).sharding)
        for name, count in counts.items()
    }
    return health.replace(**placed)


class BadStepError(Exception):
    """A step that must not be trained past; `health` is the one that says so."""

    def __init__(self, health: Health):
        super().__init__(f"bad step {int(health.bad_step)}")
        self.health = health
