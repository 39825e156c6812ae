"""The best evaluation so far, which is in every checkpoint, so that a resumed run knows it."""

import dataclasses

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.checkpoint.manifest import BEST


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation after a step, by the main metric of the task; the first one of equals.

    Attributes:
      step: updates done then; None: there has been no evaluation with a number.
      value: of the metric.
      evaluations_since: those after it, none of which was better.
    """

    step: int | None = None
    value: float | None = None
    evaluations_since: int = 0

    def after(self, step: int, value: float, *, lower_is_better: bool) -> "Best":
        """With one more evaluation; a value that is no number is never the best.

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
        """As it was at a checkpoint; without that, or if it says nothing, as before the first."""
        described = checkpoints.description(step) if step in checkpoints.steps() else {}
        return cls(**described[BEST]) if BEST in described else cls()
