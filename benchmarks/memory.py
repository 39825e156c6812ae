"""Peak resident memory of a mini run against the arrays that it cannot do without."""

from collections.abc import Callable

import jax
import ml_collections

from benchmarks import command, measuring, train_step
from sibert_jax.tools.compile_only import compile_only

ARRAYS, PLANNED = "parameters + optimizer + batch", "the same + temporaries of the step"
PEAK = "peak of the process"


def measure(
    config: ml_collections.ConfigDict | None = None,
    *,
    repeats: int = 3,
    run: Callable[[dict[str, object]], command.Run] = command.run,
) -> measuring.Result:
    """MB of the process, and of what the compiler plans for.

    Args:
      config: of the same model as the run, default mini SIBERT.
      repeats: of the run.
      run: runs the command with overrides of the config.
    """
    config = train_step.model_config("sibert") if config is None else config
    need = compile_only(config, jax.devices()[:1])
    arrays = need.param_bytes + need.optimizer_bytes + need.batch_bytes
    fixed = {ARRAYS: arrays, PLANNED: arrays + need.temporary_bytes}
    keys = command.overrides(num_steps=10)
    timed = {name: lambda size=size: size / 1e6 for name, size in fixed.items()}
    timed[PEAK] = lambda: run(keys).peak_bytes / 1e6
    return measuring.Result(
        title="Memory of a mini SIBERT run on the CPU",
        unit="MB",
        more_is_better=False,
        baseline=f"the {ARRAYS}",
        rows=measuring.rows(measuring.in_turn(timed, repeats), ARRAYS),
        notes=["The peak holds Python, its libraries, the compiler and the data besides."],
    )
