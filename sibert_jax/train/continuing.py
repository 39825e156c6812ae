"""Continues a run from one of its checkpoints, or in another workdir as a second phase."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sibert_jax.checkpoint import Checkpoints, newest_verified
from sibert_jax.checkpoint.read import named, restore_items
from sibert_jax.errors import ConfigError
from sibert_jax.files import flatten, user_path
from sibert_jax.tasks.task import TaskData
from sibert_jax.train.config import RunConfig, keys_where, run_config
from sibert_jax.train.optim_config import make_schedule
from sibert_jax.train.optimizer_table import has_average
from sibert_jax.train.start import fresh_params
from sibert_jax.train.step import TrainState
from sibert_jax.train.trainer import Shapes, Trainer, state_of
from sibert_jax.trees import path_name

POSITIONS = "encoder/embed/position"  # (max_len, D), also in optimizer state of that shape
# If any of these changes, the optimizer state cannot be used.
OPTIMIZER_KEYS = ("name", "blocks", "head.name", "other.name", "other.pattern")


def continue_from(
    run: RunConfig, shapes: Shapes, data: TaskData, say: Callable[[str], None]
) -> tuple[Trainer, TrainState]:
    """Starts a second phase from the newest state of the run in `checkpoint.continue_from`.

    Steps, schedules and the order of the data continue: with constant schedules, a second phase
    that only changes the length equals the longer run bit for bit.

    A longer position table gets fresh rows with the root mean square of the others, and zeros in
    the optimizer state.

    Args:
      run: the run of the second phase; its length, in steps, counts both phases. If
        `optim.eta_lambda` is set, η is that of the first phase.
      shapes: shapes of the run's task.
      data: data of the second phase; may differ from the first.
      say: called with messages on what is continued and what has changed.

    Raises:
      ConfigError, CheckpointError: there is no such run, it has another optimizer, vocabulary or
        model, or it is already as long.
    """
    key = f"checkpoint.continue_from={run.checkpoint.continue_from}"
    source = newest_verified(user_path(run.checkpoint.continue_from), say)
    facts, step = source.manifest.run, source.manifest.step
    if "data_fingerprint" not in facts:
        raise ConfigError(
            f"{key} holds imported weights, without optimizer state; use checkpoint.init_from "
            "instead."
        )
    before = run_config(facts["config"])
    _check(run, before, key, step)
    if facts["vocab_hash"] != data.tokenizer.hash:
        raise ConfigError(
            f"{key} was trained with another vocabulary; leave data.vocab unset to use the "
            "vocabulary of that run."
        )
    run = dataclasses.replace(run, optim=_with_rates(run, facts["learning_rate"]))
    trainer = Trainer(run, shapes)
    stored = source.manifest.leaves
    items = dict(zip(("params", "rest"), trainer.abstract_items()))
    longer = [
        name
        for name, leaf in named(items).items()
        if name in stored and _is_longer(name, leaf.shape, stored[name]["shape"])
    ]
    if longer and has_average(trainer.abstract_state.opt_state):
        raise ConfigError(
            f"{key}: optim.name={run.optim.name!r} averages the parameters, and there is no "
            "average for new positions; use checkpoint.init_from instead."
        )
    _check_shapes(items, stored, set(longer), key)

    def as_stored(path, leaf):
        name = path_name(path)
        shape = tuple(stored[name]["shape"]) if name in longer else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=leaf.sharding)

    wanted = jax.tree_util.tree_map_with_path(as_stored, items)
    found = restore_items(source.path, wanted)
    if longer:
        found = _with_more_positions(found, items, set(longer), fresh_params(run, shapes))
    say(f"continuing {source.path} at step {step:,}, with its optimizer state")
    changes = _changes(before, run)
    if facts["data_fingerprint"] != data.fingerprint:
        changes.append("the data")
    say(f"changed: {', '.join(changes) or 'nothing'}")
    if longer:
        say(
            f"positions {before.model.max_len} to {run.model.max_len - 1} are newly initialized "
            "at the scale of the others; their optimizer state is zero"
        )
    state = with_its_window(trainer, state_of(found["params"], found["rest"]), before, step)
    if line := describe_new_length(run, before, step, step - int(state.health.skipped)):
        say(line)
    return trainer, state


def _check(run: RunConfig, before: RunConfig, key: str, step: int) -> None:
    """Raises ConfigError for another task or optimizer, or a length already reached."""
    theirs, ours = flatten(dataclasses.asdict(before)), flatten(dataclasses.asdict(run))
    for name in ("task.name", *(f"optim.{name}" for name in OPTIMIZER_KEYS)):
        if theirs[name] != ours[name]:
            raise ConfigError(
                f"{key}: {name} is {theirs[name]!r} there and {ours[name]!r} here, so its "
                "optimizer state cannot be used; set it to the same value, or use "
                "checkpoint.init_from instead."
            )
    if run.train.num_steps <= step:
        raise ConfigError(
            f"{key} is at step {step:,}, and the run ends at step {run.train.num_steps:,}: "
            "train.num_steps and train.num_epochs count both phases; increase them."
        )


def _with_rates(run: RunConfig, learning_rate: float):
    if run.optim.eta_lambda == 0:
        return run.optim
    return run.optim.with_rates(learning_rate, run.optim.eta_lambda / learning_rate)


def _is_longer(name: str, ours: tuple[int, ...], theirs: list[int]) -> bool:
    """Tells whether a leaf is a position table (or its optimizer state) with more rows here."""
    same_width = len(ours) == len(theirs) == 2 and ours[1] == theirs[1]
    return name.endswith(POSITIONS) and same_width and ours[0] > theirs[0]


def _check_shapes(items: dict, stored: dict[str, dict], longer: set[str], key: str) -> None:
    leaves = named(items)
    for name in sorted(leaves.keys() | stored.keys()):
        theirs = tuple(stored[name]["shape"]) if name in stored else "absent"
        ours = leaves[name].shape if name in leaves else "absent"
        if theirs != ours and name not in longer:
            raise ConfigError(
                f"{key}: {name} is {theirs} there and {ours} here, and only the position table "
                "may grow; use the same settings, or checkpoint.init_from instead."
            )


def _with_more_positions(found: dict, items: dict, longer: set[str], fresh: dict) -> dict:
    """Extends the position tables in the trees of a checkpoint."""
    new_MD = fresh["encoder"]["embed"]["position"]

    def extended(path, leaf_LD, like_MD):
        name = path_name(path)
        if name not in longer:
            return leaf_LD

        def extend(leaf_LD, new_MD):
            rows = new_MD[len(leaf_LD) :]
            if name == f"params/{POSITIONS}":
                rows = rows * (_rms(leaf_LD) / _rms(rows))
            else:
                rows = jnp.zeros_like(rows, leaf_LD.dtype)
            return jnp.concatenate([leaf_LD, rows])

        return jax.jit(extend, out_shardings=like_MD.sharding)(leaf_LD, new_MD)

    return jax.tree_util.tree_map_with_path(extended, found, items)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _changes(before: RunConfig, run: RunConfig) -> list[str]:
    """Lists "KEY: there -> here" for the changed keys that affect the computation."""
    theirs, ours = dataclasses.asdict(before), dataclasses.asdict(run)
    free: set[Any] = keys_where("may_change", ours)
    theirs, ours = flatten(theirs), flatten(ours)
    return [
        f"{key}: {theirs[key]} -> {ours[key]}"
        for key in ours
        if key not in free and theirs[key] != ours[key]
    ]


def describe_new_length(run: RunConfig, before: RunConfig, step: int, updates: int) -> str:
    """Describes the learning rates at a change of length in a line; "" without a change.

    Args:
      run: the run, with length and warm-up in steps.
      before: the run that wrote the checkpoint.
      step: step of the checkpoint.
      updates: updates that were not skipped, which schedules count.
    """
    old, new = before.train.num_steps, run.train.num_steps
    if old == new:
        return ""
    changes = []
    for section, group in run.optim.groups.items():
        earlier = before.optim.groups[section]
        was = float(make_schedule(earlier, earlier.learning_rate, old)(updates))
        now = float(make_schedule(group, group.learning_rate, new)(updates))
        change = f"stays {now:.3g}" if was == now else f"goes from {was:.3g} to {now:.3g}"
        whose = {"optim": f"η at step {step:,}", "optim.head": "that of the head"}
        changes.append(f"{whose.get(section, f'that of {section}')} {change} ({group.schedule})")
    return f"the run of {old:,} steps becomes one of {new:,}: {', '.join(changes)}"


def restore(trainer: Trainer, checkpoints: Checkpoints, step: int) -> TrainState:
    """Restores the state of a checkpoint of this run, ready to continue."""
    before = run_config(checkpoints.description(step)["config"])
    return with_its_window(trainer, trainer.restore(checkpoints, step), before, step)


def with_its_window(
    trainer: Trainer, state: TrainState, before: RunConfig, step: int
) -> TrainState:
    """Returns a restored state; its window of logged means is emptied if already written.

    Args:
      trainer: the trainer of the continued run.
      state: the state after `step` updates.
      before: the run that wrote the state.
      step: updates done.
    """
    if before.train.log_every_steps == trainer.run.train.log_every_steps:
        return state
    if not is_logged(before, step):
        return state  # the next row covers all steps since the last one
    shardings = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract_state.window)
    empty = jax.jit(
        lambda window: jax.tree.map(jax.numpy.zeros_like, window), out_shardings=shardings
    )
    return state.replace(window=empty(state.window))


def is_logged(before: RunConfig, step: int) -> bool:
    """Tells whether a run with these settings wrote a row at a step, ending its window."""
    return step % before.train.log_every_steps == 0 or step == before.train.num_steps
