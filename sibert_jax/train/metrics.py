"""From the report of a step to a row of metrics, and the line on the terminal."""

import contextlib
import math
import sys
import time

import numpy as np
import tqdm

from sibert_jax import optim
from sibert_jax.train.step import Report


def report_row(report: Report, weight_decay: float) -> dict[str, float]:
    """Means over the window, by the names of the metrics file; blocks until they are computed.

    A window without a single good step has no means, only the count of the bad ones so far.

    The equilibrium norm is the one that the window's gradients, after the clip, lead to:
    ‖x‖_eq² = √(η/(λ(2−ηλ)))·σ with σ² the mean of ‖∇L(x/‖x‖)‖² (PAPER §3.3).
    """
    window, health = report
    bad_steps = {"train/bad_steps": int(health.skipped) + int(health.rollbacks)}
    count = int(window.count)
    if count == 0:
        return bad_steps
    means = {name: float(value) / count for name, value in window.sums.items()}
    sphere = means.pop("sphere_grad_square", None)
    row = {f"{_section(name)}/{name}": value for name, value in means.items()}
    row |= bad_steps
    learning_rate = means["learning_rate"]
    if sphere is not None:
        row["optim/weight_decay"] = weight_decay
        if learning_rate > 0 and weight_decay > 0 and math.isfinite(sphere):
            norm = float(
                optim.equilibrium.equilibrium_norm(learning_rate, weight_decay, math.sqrt(sphere))
            )
            row["optim/equilibrium_norm"] = norm
            row["optim/equilibrium_gap"] = math.log(means["param_norm"] / norm)
    return row


def _section(name: str) -> str:
    if name == "dead_attention_rows":
        return "model"
    return "train" if name.endswith("loss") else "optim"


def say(text: str) -> None:
    """A line on the terminal; one that is gone, or a log on a full disk, stops nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Step, loss, tokens/s and time left: a bar on a terminal, plain lines elsewhere.

    A silent one shows nothing, as in every process of a run but the first.
    """

    def __init__(self, first_step: int, num_steps: int, *, silent: bool = False):
        self._num_steps, self._seconds_left = num_steps, 0.0
        self._silent = silent
        self._bar = None
        if sys.stderr.isatty() and not silent:
            self._bar = tqdm.tqdm(
                total=num_steps, initial=first_step, unit="step", dynamic_ncols=True
            )
        self.restart(first_step)

    def restart(self, step: int):
        """Measures the speed from a step on."""
        self._step, self._since, self._paused = step, time.perf_counter(), 0.0
        self._work = np.zeros(3)  # examples, tokens, FLOP

    def pause(self, seconds: float):
        """Leaves time spent on evaluation or checkpoints out of the speed."""
        self._paused += seconds

    def add(self, examples: int, tokens: int, flops: float):
        """Counts the work of one update."""
        self._work += (examples, tokens, flops)

    def speed_row(self, step: int, peak_flops: float | None) -> dict[str, float]:
        """Speed of all devices since the last call, and model FLOP utilisation where known.

        Args:
          step: finished updates.
          peak_flops: peak FLOP/s of all devices together; None: not known.
        """
        seconds = max(time.perf_counter() - self._since - self._paused, 1e-9)
        examples, tokens, flops = (self._work / seconds).tolist()
        self._seconds_left = (self._num_steps - step) * seconds / max(step - self._step, 1)
        self.restart(step)
        row = {"perf/tokens_per_second": tokens, "perf/examples_per_second": examples}
        if peak_flops is not None:
            row["perf/mfu"] = flops / peak_flops
        return row

    def show(self, step: int, row: dict[str, float]):
        """Shows a logged row."""
        speed = row["perf/tokens_per_second"]
        loss = f"loss {row['train/loss']:.4f}" if "train/loss" in row else "no good step"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            return
        self.say(
            f"step {step:>7,}/{self._num_steps:,}  {loss}  "
            f"{speed:,.0f} tokens/s  {tqdm.tqdm.format_interval(self._seconds_left)} left"
        )

    def say(self, text: str):
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._silent:
            say(text)

    def close(self):
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
