"""Parameters of one run as the start of another."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from sibert_jax.checkpoint import processes
from sibert_jax.checkpoint.compare import check_same_leaves
from sibert_jax.checkpoint.directory import steps_in
from sibert_jax.checkpoint.labels import CLASSIFIER, Labels
from sibert_jax.checkpoint.manifest import Manifest
from sibert_jax.checkpoint.restore import manifest_of, restore_items
from sibert_jax.checkpoint.verify import named, problem_of
from sibert_jax.errors import CheckpointError
from sibert_jax.files import user_path


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Source:
    """A verified checkpoint of another run."""

    path: pathlib.Path
    manifest: Manifest


def newest_verified(directory: pathlib.Path, say: Callable[[str], None] = _tell) -> Source:
    """The newest checkpoint that verifies; each newer one is named in one line.

    Args:
      directory: a run's workdir or its `checkpoints`.
      say: takes the lines.

    Raises:
      CheckpointError: there is none.
    """
    directory = checkpoints_in(directory)
    newest = None
    if processes.is_first():
        for step in reversed(steps_in(directory)):
            if not (problem := problem_of(directory / str(step))):
                newest = step
                break
            say(f"checkpoint {directory / str(step)} is skipped: {problem}")
    newest = processes.from_first(newest)
    if newest is None:
        raise CheckpointError(f"{directory} holds no complete checkpoint to start from.")
    return Source(directory / str(newest), manifest_of(directory / str(newest)))


def checkpoints_in(directory: str | pathlib.Path) -> pathlib.Path:
    """The `checkpoints` of a workdir; a directory of checkpoints is one already."""
    directory = user_path(directory).absolute()
    below = directory / "checkpoints"
    return below if below.is_dir() else directory


def restore_params(directory: str | pathlib.Path, params: Any) -> tuple[Any, int]:
    """Parameters of the newest verified checkpoint of a run, and its step.

    Args:
      directory: a run's workdir or its `checkpoints`.
      params: tree of ShapeDtypeStructs with shardings, with all the leaves that are stored.
    """
    source = newest_verified(user_path(directory))
    return restore_items(source.path, {"params": params})["params"], source.manifest.step


def start_from(
    directory: str | pathlib.Path,
    fresh: dict[str, Any],
    description: dict,
    say: Callable[[str], None] = _tell,
    keys: Collection[str] | None = None,
) -> dict[str, Any]:
    """Fresh parameters with those of another run in their place, as far as they are the same.

    The encoder must be there whole. Of the head, each module (`head/NAME`) is taken that has the
    same leaves in both runs; the others stay fresh. One line says which, and where they come from.
    The outputs of a classifier are put into the order of this run's labels; a classifier of other
    labels is not taken.

    Args:
      directory: the other run's workdir or its `checkpoints`.
      fresh: {"encoder": ..., "head": ...}, this run's initial parameters.
      description: this run's, as given to `Checkpoints.save`: its "vocab_hash" must be that of the
        source, and differences of "config.model" are told; "labels" are those of a classifier, []
        if there is none.
      say: takes the line.
      keys: of "config.model" whose differences matter; None: all of them.

    Raises:
      CheckpointError: no checkpoint verifies, the encoder differs, or the vocabulary does.
    """
    source = newest_verified(user_path(directory), say)
    stored = {
        name.removeprefix("params/"): leaf
        for name, leaf in source.manifest.leaves.items()
        if name.startswith("params/")
    }
    wanted = named(fresh)
    encoder = {name: leaf for name, leaf in wanted.items() if name.startswith("encoder/")}
    found = {name: leaf for name, leaf in stored.items() if name.startswith("encoder/")}
    check_same_leaves(str(source.path), found, encoder)
    _check_vocabulary(source, description)
    modules = sorted({_module(name) for name in wanted.keys() - encoder.keys()})
    taken = [module for module in modules if _same(module, stored, wanted)]
    labels, notes = Labels.of(source.manifest.run, description), []
    if CLASSIFIER in taken and (note := labels.note()):
        notes = [note]
        if labels.order is None:
            taken.remove(CLASSIFIER)

    def is_taken(name: str) -> bool:
        return name in encoder or _module(name) in taken

    tree = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if is_taken(_name(path)) else None, fresh
    )
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )
    restored = named(restore_items(source.path, {"params": abstract}, partial=True)["params"])
    if CLASSIFIER in taken and labels.order:
        for name in restored:
            if _module(name) == CLASSIFIER:
                restored[name] = jnp.take(restored[name], jnp.array(labels.order), axis=-1)
    if processes.is_first():
        fresh_modules = sorted(set(modules) - set(taken))
        say("; ".join([_sentence(source, description, taken, fresh_modules, keys), *notes]))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: restored[_name(path)] if is_taken(_name(path)) else leaf, fresh
    )


def _check_vocabulary(source: Source, description: dict) -> None:
    theirs, ours = source.manifest.run["vocab_hash"], description["vocab_hash"]
    if theirs != ours:
        raise CheckpointError(
            f"{source.path} was trained with another vocabulary (hash {theirs[:12]}) than this "
            f"run's ({ours[:12]}), so its token table means other pieces; set data.vocab to the "
            "one of that run."
        )


def _sentence(
    source: Source,
    description: dict,
    taken: list[str],
    fresh: list[str],
    keys: Collection[str] | None,
) -> str:
    manifest, run = source.manifest, source.manifest.run
    theirs, ours = run["config"]["model"], description["config"]["model"]
    changed = [
        f"model.{key} {theirs[key]} there, {ours[key]} here"
        for key in sorted(theirs.keys() & ours.keys())
        if theirs[key] != ours[key] and (keys is None or key in keys)
    ]
    return (
        f"parameters from {source.path} (step {manifest.step:,}, commit "
        f"{(run['git_commit'] or 'unknown')[:10]}): {', '.join(['encoder', *taken])} taken; "
        f"{', '.join(fresh) or 'nothing'} fresh" + "".join(f"; {line}" for line in changed)
    )


def _same(module: str, stored: dict[str, dict], wanted: dict[str, Any]) -> bool:
    theirs = {n: (tuple(x["shape"]), x["dtype"]) for n, x in stored.items() if _module(n) == module}
    ours = {n: (tuple(x.shape), str(x.dtype)) for n, x in wanted.items() if _module(n) == module}
    return theirs == ours


def _module(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
