"""Weights in and out: python -m sibert_jax.interop {import,export} SOURCE TARGET.

import: a directory of Hugging Face's BERT, or one that `export` wrote, becomes a workdir that
        `--config.checkpoint.init_from=TARGET` starts from.
export: a workdir's newest checkpoint becomes such a directory: Hugging Face's format for
        model.arch="bert", ours for all others.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sibert_jax.checkpoint import CheckpointError, Checkpoints, newest_verified, restore_params
from sibert_jax.data import DataError, Tokenizer
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.errors import InteropError
from sibert_jax.interop.layers import nest
from sibert_jax.model import ModelConfig
from sibert_jax.train.defaults import default_config
from sibert_jax.train.workdir import write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; 2 and one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="python -m sibert_jax.interop", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=("import", "export"))
    parser.add_argument("source", type=pathlib.Path, metavar="SOURCE")
    parser.add_argument("target", type=pathlib.Path, metavar="TARGET")
    parsed = parser.parse_args(arguments)
    action = import_weights if parsed.action == "import" else export_weights
    try:
        print(action(parsed.source, parsed.target))
    except (InteropError, CheckpointError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def import_weights(source: pathlib.Path, target: pathlib.Path) -> str:
    """Makes a workdir of foreign weights; returns what was read, in words."""
    cfg, params, told = _read(source)
    vocabulary = source / "vocab.txt"
    if not vocabulary.is_file():
        raise InteropError(
            f"{vocabulary} is missing; without the vocabulary the token table means nothing."
        )
    tokenizer = Tokenizer.load(vocabulary)
    if tokenizer.vocab_size != cfg.vocab_size:
        raise InteropError(
            f"{vocabulary} has {tokenizer.vocab_size} pieces and the token table {cfg.vocab_size} "
            "rows; they are of different models."
        )
    config = default_config()
    config.model.update(dataclasses.asdict(cfg))
    config.data.vocab = str(target / "vocab.txt")
    hugging_face.new_directory(target)
    shutil.copyfile(vocabulary, target / "vocab.txt")
    write_json(target / "config.json", config.to_dict())
    run = {
        "source": str(source),
        "git_commit": None,
        "vocab_hash": tokenizer.hash,
        "config": config.to_dict(),
    }
    with Checkpoints(target / "checkpoints", keep=1) as checkpoints:
        params = jax.tree.map(jnp.asarray, params)
        checkpoints.save(0, params, {"step": jnp.zeros((), jnp.int32)}, run)
    return f"{told}\n{target}: start from it with --config.checkpoint.init_from={target}"


def _read(source: pathlib.Path) -> tuple[ModelConfig, dict, str]:
    try:
        is_ours = "format" in json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        is_ours = False  # the reader below says what is wrong
    if is_ours:
        cfg, params = exported.read(source)
        return cfg, params, f"{source}: {cfg.arch}, {_size(params)}"
    found = hugging_face.read(source)
    kind = hugging_face.ARCHITECTURES[found.head]
    told = f"{source}: {kind}, {_size(found.params)}"
    if found.unused:
        told += f"\nnot used, as our model has no place for them: {', '.join(found.unused)}"
    return found.cfg, found.params, told


def export_weights(source: pathlib.Path, target: pathlib.Path) -> str:
    """Writes the newest checkpoint of a workdir as a directory; returns what it is, in words."""
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InteropError(
            f"{source / 'config.json'} cannot be read ({error}); name the workdir of a run."
        ) from None
    cfg = ModelConfig(**config["model"])
    manifest = newest_verified(source).manifest
    shapes = {
        name.removeprefix("params/"): jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"])
        for name, leaf in manifest.leaves.items()
        if name.startswith("params/")
    }
    params, step = restore_params(source, nest(shapes))
    if cfg.arch == "bert":
        head = config["task"]["name"] if "head" in params else ""
        hugging_face.write(target, cfg, params, head, _num_labels(params))
        told = f"{target}: {hugging_face.ARCHITECTURES[head]}, {_size(params)}, step {step:,}"
    else:
        exported.write(target, cfg, params, f"step {step:,} of {source.name}")
        told = f"{target}: {cfg.arch}, {_size(params)}, step {step:,}"
    shutil.copyfile(source / "vocab.txt", target / "vocab.txt")
    return told


def _num_labels(params: dict) -> int:
    head = params.get("head", {})
    return head["classifier"]["bias"].shape[0] if "classifier" in head else 2


def _size(params: dict) -> str:
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6:.1f} million parameters"


if __name__ == "__main__":
    sys.exit(main())
