"""A run that goes on with another length, or with other windows of logged means."""

import dataclasses
import pathlib
from collections.abc import Mapping

from sibert_jax.errors import ConfigError
from sibert_jax.train import build
from sibert_jax.train.run_config import RunConfig

KEYS = ("train.num_steps", "train.num_epochs")


def check(directory: pathlib.Path, old: Mapping, new: Mapping, newest: int) -> None:
    """Refuses another length, unless the schedule does not depend on it or `train.extend` is set.

    Args:
      directory: the workdir, for the message.
      old: its settings, as {"a.b": value}.
      new: the settings of this start.
      newest: step of its newest checkpoint.
    """
    for key in KEYS:
        if key not in new or new[key] == old[key]:
            continue
        if key == "train.num_steps" and new[key] < newest:
            raise _too_short(key, new[key], newest)
        schedules = _depending(new)
        if schedules and not new["train.extend"]:
            raise ConfigError(
                f"{directory} holds a run of {key}={old[key]}, now it is {new[key]}, and the "
                f"learning rate follows from it ({', '.join(schedules)}): give "
                "--config.train.extend=True to go on with the schedule of the new length, or "
                f"--config.{key}={old[key]}. Nothing was changed."
            )


def _depending(settings: Mapping) -> list[str]:
    """The schedules in use that follow from the length of the run."""
    head = _has_own_head(settings["optim.name"], settings["optim.head.name"])
    return [
        f"{section}.schedule={settings[f'{section}.schedule']!r}"
        for section in ("optim", "optim.head")[: 1 + head]
        if settings[f"{section}.schedule"] != "constant"
        or (f"{section}.warmup_fraction" in settings and settings[f"{section}.warmup_fraction"] > 0)
    ]


def _has_own_head(optim_name: str, head_name: str) -> bool:
    """Whether the head has an optimizer of its own; else it shares that of the encoder."""
    return optim_name == "scale_invariant_sgd" and head_name != "recipe"


def check_steps(run: RunConfig, newest: int) -> None:
    """Refuses a length, now in steps, that the run is past already."""
    if newest > run.train.num_steps:
        key = "train.num_epochs" if run.train.num_epochs else "train.num_steps"
        raise _too_short(key, run.train.num_steps, newest)


def _too_short(key: str, num_steps: int, newest: int) -> ConfigError:
    return ConfigError(
        f"{key} says {num_steps:,} steps, and the newest checkpoint is of step {newest:,}; give at "
        "least as many, or another --workdir. Nothing was changed."
    )


def told(run: RunConfig, before: dict, peak: float, step: int, updates: int) -> str:
    """What another length does to the learning rate, in a line; "" if it is the same.

    Args:
      run: with its length in steps.
      before: the settings that the checkpoint was written with.
      peak: η of the encoder at its peak.
      step: of the checkpoint.
      updates: those of them that were not skipped, which schedules count.
    """
    old, new = before["train"]["num_steps"], run.train.num_steps
    if old == new:
        return ""

    def change(c, warmup_before: int, peak: float) -> str:
        earlier = dataclasses.replace(c, warmup_steps=warmup_before)
        was = float(build.make_schedule(earlier, peak, old)(updates))
        now = float(build.make_schedule(c, peak, new)(updates))
        how = f"stays {now:.3g}" if was == now else f"goes from {was:.3g} to {now:.3g}"
        return f"{how} ({c.schedule})"

    c, c_before = run.optim, before["optim"]
    text = f"η at step {step:,} {change(c, c_before['warmup_steps'], peak)}"
    if _has_own_head(c.name, c.head.name):
        head = change(c.head, c_before["head"]["warmup_steps"], c.head.learning_rate)
        text += f", that of the head {head}"
    return f"the run of {old:,} steps becomes one of {new:,}: {text}"


def is_logged(before: dict, step: int) -> bool:
    """Whether the row of a step was written by a run with these settings: its window is over."""
    c = before["train"]
    return step % c["log_every_steps"] == 0 or step == c["num_steps"]
