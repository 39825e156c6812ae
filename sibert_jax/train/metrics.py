"""From the report of a step to a row of metrics, and the line on the terminal."""

import math
import sys

import tqdm

from sibert_jax import optim
from sibert_jax.runtime.terminal import say
from sibert_jax.train.step import Report


def report_row(report: Report, weight_decay: float) -> dict[str, float]:
    """Means over the window, by the names of the metrics file; blocks until they are computed.

    A window without a single good step has no means, only the count of the bad ones so far.

    The equilibrium norm is the one that the window's gradients, after the clip, lead to:
    ‖x‖_eq² = √(η/(λ(2−ηλ)))·σ with σ² the mean of ‖∇L(x/‖x‖)‖² (arXiv 2202.00980).
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


def plan(num_steps: int, global_batch_size: int, steps_per_epoch: int) -> str:
    """How often a run will see its training examples, for people.

    Example:
      >>> plan(num_steps=1200, global_batch_size=32, steps_per_epoch=7500)
      '1,200 steps of 32 examples: 0.16 epochs of 7,500 steps'
    """
    epochs = num_steps / steps_per_epoch
    shown = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    return (
        f"{num_steps:,} step{'s' * (num_steps != 1)} of {global_batch_size:,} examples: {shown} "
        f"epoch{'s' * (shown != '1')} of {steps_per_epoch:,} step{'s' * (steps_per_epoch != 1)}"
    )


class Progress:
    """Step, loss, tokens/s and time left: a bar on a terminal, plain lines elsewhere.

    A silent one shows nothing, as in every process of a run but the first.
    """

    def __init__(self, first_step: int, num_steps: int, *, silent: bool = False):
        self._num_steps, self._silent = num_steps, silent
        self._bar = None
        if sys.stderr.isatty() and not silent:
            self._bar = tqdm.tqdm(
                total=num_steps, initial=first_step, unit="step", dynamic_ncols=True
            )

    def show(self, step: int, row: dict[str, float], seconds_a_step: float):
        """Shows a logged row."""
        speed = row["perf/tokens_per_second"]
        loss = f"loss {row['train/loss']:.4f}" if "train/loss" in row else "no good step"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            return
        left = tqdm.tqdm.format_interval((self._num_steps - step) * seconds_a_step)
        self.say(f"step {step:>7,}/{self._num_steps:,}  {loss}  {speed:,.0f} tokens/s  {left} left")

    def say(self, text: str):
        """A line of its own."""
        if not self._silent:
            say(text)

    def close(self):
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
