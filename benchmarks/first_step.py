"""From the launch of a mini run to its first logged step, with a cold and a warm cache."""

import tempfile
from collections.abc import Callable

from benchmarks import command, measuring

COLD, WARM = "empty compilation cache", "warm compilation cache"


def measure(
    *, repeats: int = 3, run: Callable[[dict[str, object]], command.Run] = command.run
) -> measuring.Result:
    """Seconds of both; the tokens are cached for both.

    Args:
      repeats: of each, after one run that fills the caches.
      run: runs the command with overrides of the config.
    """
    keys = command.overrides(num_steps=2)
    with tempfile.TemporaryDirectory() as caches:

        def timed(cache: str) -> float:
            return run(keys | {"train.compilation_cache_dir": cache}).first_step_seconds

        def cold() -> float:
            return timed(tempfile.mkdtemp(dir=caches))

        warm = tempfile.mkdtemp(dir=caches)
        timed(warm)
        values = measuring.in_turn({COLD: cold, WARM: lambda: timed(warm)}, repeats)
    return measuring.Result(
        title="From the launch of a mini run to its first logged step",
        unit="s",
        more_is_better=False,
        baseline=f"the {COLD}",
        rows=measuring.rows(values, COLD),
        notes=["Importing, opening the data and the evaluation before the first step are in it."],
    )
