"""Initializes a run with the parameters of another."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from sibert_jax.checkpoint.choose import Source, chosen, newest_verified, tell
from sibert_jax.checkpoint.collectives import is_first
from sibert_jax.checkpoint.manifest import AVERAGES, check_same_leaves, stored_params
from sibert_jax.checkpoint.read import named, restore_items
from sibert_jax.errors import CheckpointError
from sibert_jax.files import flatten, user_path
from sibert_jax.trees import nest

# Modules whose outputs have a meaning: labels, or a score.
OUTPUTS = ("head/classifier", "head/tagger")


def restore_params(
    directory: str | pathlib.Path, params: Any, step: int | str | None = None
) -> tuple[Any, int]:
    """Reads the parameters (averaged if it has AVERAGES) and the step of a verified checkpoint.

    Args:
      directory: a run's workdir or its `checkpoints`.
      params: tree of ShapeDtypeStructs with shardings, with all stored leaves.
      step: None for the newest one; "best"; or its number of updates.
    """
    source = chosen(user_path(directory), step)
    check_same_leaves(str(source.path), stored_params(source.manifest), named(params))
    return _restore(source, params), source.manifest.step


def restore_all_params(source: Source) -> dict[str, Any]:
    """Reads a checkpoint's parameters, likewise averaged, as a nested dict on the first device."""
    leaves = stored_params(source.manifest).items()
    shapes = {name: jax.ShapeDtypeStruct(x["shape"], x["dtype"]) for name, x in leaves}
    return _restore(source, nest(shapes))


def _restore(source: Source, params: Any) -> Any:
    """Reads some of the parameters, averaged if the run averages them."""
    if any(name.startswith(f"rest/{AVERAGES}/") for name in source.manifest.leaves):
        wanted = {"rest": {AVERAGES: params}}
        return restore_items(source.path, wanted, partial=True)["rest"][AVERAGES]
    return restore_items(source.path, {"params": params}, partial=True)["params"]


def start_from(
    directory: str | pathlib.Path,
    fresh: dict[str, Any],
    description: dict,
    say: Callable[[str], None] = tell,
    keys: Collection[str] | None = None,
) -> dict[str, Any]:
    """Replaces fresh parameters by those of another run, as far as they match.

    The whole encoder must match. Each module of the head (`head/NAME`) is taken if it has the same
    leaves in both runs; the others stay fresh. One message says which, and where they come from.
    The outputs of a classifier are reordered to this run's labels, or rescaled to its scores; a
    classifier with other labels is not taken.

    Args:
      directory: the other run's workdir or its `checkpoints`.
      fresh: {"encoder": ..., "head": ...}, this run's initial parameters.
      description: this run's description, as given to `Checkpoints.save`: "vocab_hash" must equal
        that of the source, and differences in "config.model" are reported; "labels" are those of a
        classifier, or []; "score_map", if known, is (a, b): a + b·output is a score in the unit of
        the data.
      say: called with the message.
      keys: the keys of "config.model" whose differences matter; None: all.

    Raises:
      CheckpointError: no checkpoint verifies, or the encoder or the vocabulary differs.
    """
    source = newest_verified(user_path(directory), say)
    stored = stored_params(source.manifest)
    wanted, changed = named(fresh), _changed(source.manifest.run, description)
    encoder = {name: leaf for name, leaf in wanted.items() if name.startswith("encoder/")}
    found = {name: leaf for name, leaf in stored.items() if name.startswith("encoder/")}
    settings = f"settings that differ: {', '.join(changed.values())}" if changed else ""
    check_same_leaves(str(source.path), found, encoder, settings)
    _check_vocabulary(source, description)
    modules = sorted({_module(name) for name in wanted.keys() - encoder.keys()})
    taken = [module for module in modules if _same(module, stored, wanted)]
    labels, notes = Labels.of(source.manifest.run, description), []
    for module in set(taken) & set(OUTPUTS):
        if note := labels.note():
            notes.append(f"{module} {note}")
        if labels.order is None:
            taken.remove(module)

    def is_taken(name: str) -> bool:
        return name in encoder or _module(name) in taken

    tree = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if is_taken(_name(path)) else None, fresh
    )
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )
    restored = named(_restore(source, abstract))
    for name in [name for name in restored if _module(name) in OUTPUTS]:
        if labels.order:
            axis = 0 if name.endswith("/rows") else -1  # the axis of the labels
            restored[name] = jnp.take(restored[name], jnp.array(labels.order), axis=axis)
        else:
            restored[name] = _on_scale(name, restored[name], source.manifest.run, description)
    if is_first():
        fresh_modules = sorted(set(modules) - set(taken))
        changes = [line for key, line in changed.items() if keys is None or key in keys]
        say("; ".join([_sentence(source, taken, fresh_modules), *changes, *notes]))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: restored[_name(path)] if is_taken(_name(path)) else leaf, fresh
    )


def _on_scale(name: str, leaf: jax.Array, theirs: dict, ours: dict) -> jax.Array:
    """Rescales a kernel or bias so that its outputs give the same scores in this run."""
    maps = [run["score_map"] for run in (theirs, ours) if run.get("score_map")]
    if len(maps) < 2 or maps[0] == maps[1] or name.endswith("/rows"):
        return leaf
    (a, b), (own_a, own_b) = maps
    return (leaf * b + (a - own_a if name.endswith("/bias") else 0.0)) / own_b


def _check_vocabulary(source: Source, description: dict) -> None:
    theirs, ours = source.manifest.run["vocab_hash"], description["vocab_hash"]
    if theirs != ours:
        raise CheckpointError(
            f"{source.path} was trained with another vocabulary (hash {theirs[:12]}) than this "
            f"run's ({ours[:12]}), so the rows of its token table stand for other tokens; set "
            "data.vocab to the vocabulary of that run."
        )


def _changed(theirs: dict, ours: dict) -> dict[str, str]:
    """Returns the differences between two model configs, by key."""
    theirs, ours = (flatten(run["config"]["model"]) for run in (theirs, ours))
    return {
        key: f"model.{key} {theirs[key]} there, {ours[key]} here"
        for key in sorted(theirs.keys() & ours.keys())
        if theirs[key] != ours[key]
    }


def _sentence(source: Source, taken: list[str], fresh: list[str]) -> str:
    commit = (source.manifest.run["git_commit"] or "unknown")[:10]
    return (
        f"parameters from {source.path} (step {source.manifest.step:,}, commit {commit}): "
        f"{', '.join(['encoder', *taken])} taken; {', '.join(fresh) or 'nothing'} fresh"
    )


def _same(module: str, stored: dict[str, dict], wanted: dict[str, Any]) -> bool:
    theirs = {n: (tuple(x["shape"]), x["dtype"]) for n, x in stored.items() if _module(n) == module}
    ours = {n: (tuple(x.shape), str(x.dtype)) for n, x in wanted.items() if _module(n) == module}
    return theirs == ours


def _module(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Matches the outputs of the source with those of this run.

    Attributes:
      theirs: labels of the source, in the order of its outputs; () if unknown.
      ours: likewise for this run.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]

    @classmethod
    def of(cls, their_run: dict, our_run: dict) -> "Labels":
        """Reads the labels from the descriptions of two runs."""
        return cls(*(tuple(run.get("labels", ())) for run in (their_run, our_run)))

    @property
    def order(self) -> list[int] | None:
        """The index in the source of each of our labels; None if the labels differ.

        [] keeps the outputs unchanged: a run does not name them, or there is only one. "LABEL_1" is
        transformers' name for label 1; case is ignored.

        Example:
          >>> Labels(("NEUTRAL", "ENTAILMENT"), ("entailment", "neutral")).order
          [1, 0]
        """
        if not self.theirs or not self.ours or len(self.theirs) == len(self.ours) == 1:
            return []
        theirs, ours = ([_plain(name) for name in names] for names in (self.theirs, self.ours))
        if len(set(theirs)) < len(theirs) or sorted(theirs) != sorted(ours):
            return None
        return [theirs.index(name) for name in ours]

    def note(self) -> str:
        """Returns a note on the consequence of a difference; "" if there is none."""
        names = f"{', '.join(self.theirs)} there, {', '.join(self.ours)} here"
        if self.order is None:
            return f"is not taken, because its labels are {names}"
        if self.order not in ([], list(range(len(self.ours)))):
            return f"is reordered: {names}"
        return ""


def _plain(name: str) -> str:
    return name.casefold().removeprefix("label_")
