"""`--profile=START:STOP`: a trace of some steps, written by jax.profiler."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable

import jax

from sibert_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
    """The steps to trace: after `start` updates are done, until `stop` are."""

    start: int
    stop: int

    @classmethod
    def parse(cls, text: str) -> "ProfiledSteps":
        """Reads START:STOP.

        Raises:
          ConfigError: the text is not a pair of whole numbers, or START is not below STOP.

        Example:
          >>> ProfiledSteps.parse("10:20")
          ProfiledSteps(start=10, stop=20)
        """
        found = re.fullmatch(r"([0-9]+):([0-9]+)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise ConfigError(
                f"--profile={text} must be START:STOP, two whole numbers of steps with "
                "0 <= START < STOP, such as 10:20."
            )
        return cls(int(found[1]), int(found[2]))

    def check(self, num_steps: int) -> None:
        """Checks that the run has these steps.

        Raises:
          ConfigError: STOP is beyond the last step.
        """
        if self.stop > num_steps:
            raise ConfigError(
                f"--profile={self} ends after the last step of this run, {num_steps}."
            )

    def __str__(self):
        return f"{self.start}:{self.stop}"


class Profiler:
    """Traces given steps into a directory, once; stops early if the run does.

    A run resumed among these steps traces the rest; one resumed after them reports so. A trace that
    cannot be written does not stop training.

    Args:
      steps: the steps to trace; None: none.
      directory: `profile` of the workdir, created if necessary.
      first_step: updates done before this process started.
      say: called with messages.
    """

    def __init__(
        self,
        steps: ProfiledSteps | None,
        directory: pathlib.Path,
        first_step: int,
        say: Callable[[str], None],
    ):
        self._steps, self._directory, self._say = steps, directory, say
        self._tracing = False
        if steps is not None and first_step >= steps.stop:
            say(f"--profile={steps}: the run is at step {first_step} already; nothing is traced")
            self._steps = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop()

    def is_due(self, done: int) -> bool:
        """Tells whether to turn tracing on or off after `done` updates."""
        if self._steps is None:
            return False
        return done >= (self._steps.stop if self._tracing else self._steps.start)

    def turn(self) -> None:
        """Starts the trace, or ends it; the device should be idle."""
        if self._tracing:
            self._stop()
            return
        try:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True
        except RuntimeError as error:  # for instance, the caller has started a trace
            self._give_up(error)

    def _stop(self) -> None:
        if not self._tracing:
            return
        self._tracing = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            self._give_up(error)
            return
        self._say(f"traced steps {self._steps} into {self._directory}")
        self._steps = None

    def _give_up(self, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0]
        self._say(f"warning: --profile={self._steps}: no trace is written ({reason})")
        self._steps = None


@contextlib.contextmanager
def marked(step: int):
    """Marks the enclosed code as a step, for trace viewers."""
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
        yield
