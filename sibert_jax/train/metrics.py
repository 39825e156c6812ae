"""From the report of a step to a row of metrics, and the line on the terminal."""

import contextlib
import math
import sys
import time

import tqdm

from sibert_jax import optim
from sibert_jax.train.step import Report

_SECTIONS = {"loss": "train", "mlm_loss": "train", "nsp_loss": "train"}
_SECTIONS["dead_attention_rows"] = "model"


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
    row = {f"{_SECTIONS.get(name, 'optim')}/{name}": value for name, value in means.items()}
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


def say(text: str) -> None:
    """A line on the terminal; one that is gone, or a log on a full disk, stops nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Step, loss, tokens/s and time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, first_step: int, num_steps: int, tokens_per_step: int):
        self._num_steps, self._tokens_per_step = num_steps, tokens_per_step
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=num_steps, initial=first_step, unit="step", dynamic_ncols=True
            )
        self._last = (first_step, time.perf_counter(), 0.0)

    def pause(self, seconds: float):
        """Leaves time spent on evaluation or checkpoints out of the speed."""
        step, since, paused = self._last
        self._last = (step, since, paused + seconds)

    def tokens_per_second(self, step: int) -> float:
        """Speed since the last call; `step` counts finished updates."""
        last_step, since, paused = self._last
        now = time.perf_counter()
        self._last = (step, now, 0.0)
        seconds = max(now - since - paused, 1e-9)
        return (step - last_step) * self._tokens_per_step / seconds

    def restart(self, step: int):
        """Goes on from an earlier step."""
        self._last = (step, time.perf_counter(), 0.0)

    def show(self, step: int, row: dict[str, float]):
        """Shows a logged row."""
        speed = row["perf/tokens_per_second"]
        loss = f"loss {row['train/loss']:.4f}" if "train/loss" in row else "no good step"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            return
        left = (self._num_steps - step) * self._tokens_per_step / max(speed, 1e-9)
        self.say(
            f"step {step:>7,}/{self._num_steps:,}  {loss}  "
            f"{speed:,.0f} tokens/s  {tqdm.tqdm.format_interval(left)} left"
        )

    def say(self, text: str):
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            say(text)

    def close(self):
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()


# Peak dense bf16 FLOP/s of one device, from the vendors' data sheets.
PEAK_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def speed_row(
    tokens_per_second: float, flops_per_token: float, device_kind: str, num_devices: int
) -> dict[str, float]:
    """Tokens/s of all devices, and model FLOP utilisation where the device's peak is known."""
    row = {"perf/tokens_per_second": tokens_per_second}
    if device_kind in PEAK_FLOPS:
        peak = PEAK_FLOPS[device_kind] * num_devices
        row["perf/mfu"] = tokens_per_second * flops_per_token / peak
    return row
