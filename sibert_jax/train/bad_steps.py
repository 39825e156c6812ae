"""Detection and handling of bad steps, inside the compiled step.

A step is bad when its loss, its gradient or its update is not finite, or when its loss exceeds
`spike_factor` times the running mean of the losses of the preceding good steps.
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
    """Checkpointed scalars, so that a resumed run decides like an uninterrupted one."""

    loss_sum: jax.Array  # float32, over good steps, weights decaying by 1 − 1/MEMORY per step
    loss_weight: jax.Array  # float32, sum of these weights; 0: no good step yet
    skipped: jax.Array  # int32, discarded updates
    skipped_in_a_row: jax.Array  # int32
    bad_step: jax.Array  # int32, the first step that must not be trained past; -1: none
    bad_loss: jax.Array  # float32, its loss
    batch_offset: jax.Array  # int32, batches skipped by rollbacks: update t has batch t + this
    rollbacks: jax.Array  # int32


def fresh_health() -> Health:
    """Returns the health before the first step."""
    zero, nothing = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
    return Health(nothing, nothing, zero, zero, zero - 1, nothing, zero, zero)


@dataclasses.dataclass(frozen=True)
class BadSteps:
    """The policy of a run for bad steps."""

    action: str  # one of ACTIONS
    spike_factor: float  # > 1; inf: loss spikes are allowed
    max_skips_in_a_row: int  # >= 0, for "skip"
    max_rollbacks: int  # >= 0, for "rollback"

    def decide(
        self, health: Health, step: jax.Array, loss: jax.Array, finite: jax.Array
    ) -> tuple[jax.Array, Health]:
        """Decides whether a step is bad.

        Args:
          health: the health before the step.
          step: int32, the number of this step, from 1.
          loss: float32 scalar, the loss of the step.
          finite: bool scalar, whether loss, gradient and update are finite.

        Returns:
          Whether the step is bad, and the health after it. `bad_step` is set permanently at the
          first bad step; if updates are skipped, at the first that exceeds the limit of consecutive
          ones.
        """
        mean = health.loss_sum / jnp.maximum(health.loss_weight, 1.0)
        spike = (health.loss_weight > 0) & (loss > self.spike_factor * mean)
        bad = ~finite | spike
        # A batch without targets has loss 0 and must not enter the running mean.
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
        """Returns a message on what was wrong with `bad_step`, once it is set."""
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
    """Returns the health with some counts replaced, keeping their shardings."""
    placed = {
        name: jax.device_put(np.asarray(count, np.int32), getattr(health, name).sharding)
        for name, count in counts.items()
    }
    return health.replace(**placed)


class BadStepError(Exception):
    """Raised for a step that must not be trained past; `health` describes it."""

    def __init__(self, health: Health):
        super().__init__(f"bad step {int(health.bad_step)}")
        self.health = health
