"""The best evaluation so far, saved in every checkpoint for resumed runs."""

import dataclasses

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.checkpoint.manifest import BEST


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation so far by the task's main metric; ties go to the first.

    Attributes:
      step: updates done at that evaluation; None: no evaluation with a finite value yet.
      value: the value of the metric.
      evaluations_since: evaluations since then, none of which was better.
    """

    step: int | None = None
    value: float | None = None
    evaluations_since: int = 0

    def after(self, step: int, value: float, *, lower_is_better: bool) -> "Best":
        """Returns the best after one more evaluation; NaN is never the best.

        Example:
          >>> best = Best().after(100, 0.5, lower_is_better=True)
          >>> best.after(200, 0.6, lower_is_better=True)
          Best(step=100, value=0.5, evaluations_since=1)
        """
        is_number = value == value
        if is_number and (
            self.value is None or (value < self.value if lower_is_better else value > self.value)
        ):
            return Best(step, value)
        return dataclasses.replace(self, evaluations_since=self.evaluations_since + 1)

    @classmethod
    def at(cls, checkpoints: Checkpoints, step: int) -> "Best":
        """Reads the best from a checkpoint; empty if there is no checkpoint or it has none."""
        described = checkpoints.description(step) if step in checkpoints.steps() else {}
        return cls(**described[BEST]) if BEST in described else cls()
