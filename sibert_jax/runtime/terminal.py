"""The terminal output of a run."""

import contextlib
import sys

import tqdm


def say(text: str) -> None:
    """Prints a line on the terminal, above any progress bar; write errors are ignored."""
    with contextlib.suppress(OSError):
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def epochs_line(num_steps: int, global_batch_size: int, steps_per_epoch: int) -> str:
    """Returns the length of a run in steps and epochs, as a line of text.

    Example:
      >>> epochs_line(num_steps=1200, global_batch_size=32, steps_per_epoch=7500)
      '1,200 steps of 32 examples: 0.16 epochs of 7,500 steps'
    """
    epochs = num_steps / steps_per_epoch
    shown = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    return (
        f"{num_steps:,} step{'s' * (num_steps != 1)} of {global_batch_size:,} examples: {shown} "
        f"epoch{'s' * (shown != '1')} of {steps_per_epoch:,} step{'s' * (steps_per_epoch != 1)}"
    )


class Progress:
    """Shows step, loss, tokens/s and time left: a bar on a terminal, plain lines elsewhere.

    If silent, shows nothing, as in every process of a run but the first.
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
        loss = f"loss {row['train/loss']:.4f}" if "train/loss" in row else "all steps bad"
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            return
        left = tqdm.tqdm.format_interval((self._num_steps - step) * seconds_a_step)
        self.say(f"step {step:>7,}/{self._num_steps:,}  {loss}  {speed:,.0f} tokens/s  {left} left")

    def say(self, text: str):
        """Prints a separate line."""
        if not self._silent:
            say(text)

    def close(self):
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
