"""From the launch of a run to its first logged step, with a cold and a warm cache."""

import pathlib
import tempfile
from collections.abc import Callable

from benchmarks import command, finetuning, measuring

COLD, WARM = "empty compilation cache", "warm compilation cache"
NUM_BATCHES = 16


def measure(
    *, repeats: int = 3, run: Callable[[dict[str, object], str], command.Run] = command.run
) -> measuring.Result:
    """Seconds of both, of pretraining and of fine-tuning; pretraining's tokens are cached.

    Args:
      repeats: of each, after one run that fills the caches.
      run: runs the command with overrides of a config.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "pretraining": ("configs/mini.py", command.overrides(num_steps=2)),
            "fine-tuning": ("configs/glue.py:task=mnli", _pairs(pathlib.Path(folder))),
        }

        def first_step(name: str, cache: str) -> float:
            config, keys = runs[name]
            return run(keys | {"train.compilation_cache_dir": cache}, config).first_step_seconds

        rows = []
        for name in runs:
            warm = tempfile.mkdtemp(dir=folder)
            first_step(name, warm)
            timed = {
                COLD: lambda name=name: first_step(name, tempfile.mkdtemp(dir=folder)),
                WARM: lambda name=name, warm=warm: first_step(name, warm),
            }
            rows += measuring.rows(measuring.in_turn(timed, repeats), COLD, name)
    return measuring.Result(
        title="From the launch of a mini run to its first logged step",
        unit="s",
        more_is_better=False,
        baseline=f"the {COLD}",
        rows=rows,
        notes=[
            "Importing, opening the data and the evaluation before the first step are in it. "
            f"Fine-tuning is on {32 * NUM_BATCHES} pairs."
        ],
    )


def _pairs(folder: pathlib.Path) -> dict[str, object]:
    """Overrides of the config of MNLI for two steps on made-up pairs."""
    config = finetuning.config("mnli", "sibert", folder, NUM_BATCHES, {})
    keys = {f"data.{key}": config.data[key] for key in ("path", "valid_path", "test_path", "vocab")}
    return keys | {"train.num_epochs": 0.0, "train.num_steps": 2, "train.log_every_steps": 1}
