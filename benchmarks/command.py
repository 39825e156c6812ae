"""The real command in a process of its own: when its first step is logged, its peak memory."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
FIRST_STEP = re.compile(r"step +1/")


class Run(NamedTuple):
    """Seconds from the launch to the line of the first step, and the greatest resident memory."""

    first_step_seconds: float
    peak_bytes: int


def run(overrides: dict[str, object], config: str = "configs/mini.py") -> Run:
    """Runs `python -m sibert_jax.main` to its end, in a workdir that is thrown away.

    Args:
      overrides: keys of the config, `train.log_every_steps` = 1 among them.
      config: the config file.

    Raises:
      RuntimeError: it fails, or logs no first step.
    """
    keys = [f"--config.{key}={value}" for key, value in overrides.items()]
    with tempfile.TemporaryDirectory() as directory:
        words = [sys.executable, "-m", "sibert_jax.main", f"--config={config}"]
        since, seconds, said = time.perf_counter(), None, []
        process = subprocess.Popen(
            [*words, f"--workdir={directory}/run", *keys],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process.stderr:
            for line in process.stderr:
                said.append(line)
                if seconds is None and FIRST_STEP.match(line):
                    seconds = time.perf_counter() - since
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or seconds is None:
        raise RuntimeError(f"the command ended with {process.returncode}: {''.join(said[-5:])}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * unit)


def overrides(num_steps: int) -> dict[str, object]:
    """Mini SIBERT on the builtin text for a few steps, each logged."""
    return {
        "data.source": "builtin",
        "data.path": "",
        "data.valid_path": "",
        "train.num_steps": num_steps,
        "train.log_every_steps": 1,
        "train.eval_batches": 1,
        "optim.head.warmup_steps": 1,
    }
