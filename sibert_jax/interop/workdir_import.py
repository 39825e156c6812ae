"""Imports foreign weights into workdirs."""

import dataclasses
import pathlib
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.data import Tokenizer, WordPiece
from sibert_jax.errors import InteropError
from sibert_jax.files import write_json
from sibert_jax.interop import exported, foreign
from sibert_jax.interop.config_json import read_json
from sibert_jax.interop.hugging_face_model import new_directory
from sibert_jax.model import ModelConfig
from sibert_jax.train.config import default_config

# Folder of an imported workdir for the original files, which an export writes back.
ORIGINAL = "original"
ORIGINAL_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "generation_config.json"),
)


def import_weights(source: pathlib.Path, target: pathlib.Path) -> str:
    """Creates a workdir from foreign weights; returns a description of what was read."""
    found = _read(source)
    cfg, params = found.cfg, found.params
    tokenizer = Tokenizer.load(source)
    if tokenizer.vocab_size > cfg.vocab_size:
        raise InteropError(
            f"the vocabulary of {source} has {tokenizer.vocab_size} pieces and the token table "
            f"{cfg.vocab_size} rows; they belong to different models."
        )
    notes = [*found.notes]
    if isinstance(tokenizer, WordPiece):
        notes += _cleaning_note(tokenizer)
    if num_spare := cfg.vocab_size - tokenizer.vocab_size:
        notes.append(
            f"{num_spare} rows of the token table have no token in the vocabulary; they are kept, "
            "unused"
        )
        tokenizer = tokenizer.filled(cfg.vocab_size)
    config = default_config()
    config.model.update(dataclasses.asdict(cfg))
    config.data.tokenizer = tokenizer.kind
    config.data.vocab = str(target / tokenizer.file_name)
    new_directory(target)
    tokenizer.save(target / tokenizer.file_name)
    _keep_original(source, found.config, target / ORIGINAL)
    write_json(target / "config.json", config.to_dict())
    run = {
        "source": str(source),
        "git_commit": None,
        "vocab_hash": tokenizer.hash,
        "labels": list(found.labels),
        "score_map": (0.0, 1.0) if len(found.labels) == 1 else None,
        "config": config.to_dict(),
    }
    with Checkpoints(target / "checkpoints", keep=1) as checkpoints:
        params = jax.tree.map(jnp.asarray, params)
        checkpoints.save(0, params, {"step": jnp.zeros((), jnp.int32)}, run)
    notes.append(f"{target}: start from it with --config.checkpoint.init_from={target}")
    return "\n".join(notes)


class _Found(NamedTuple):
    cfg: ModelConfig
    params: dict
    labels: tuple[str, ...]
    config: dict | None  # Hugging Face's config.json
    notes: list[str]


def _read(source: pathlib.Path) -> _Found:
    if "format" in read_json(source / "config.json"):
        cfg, params = exported.read(source)
        return _Found(cfg, params, (), None, [f"{source}: {cfg.arch}, {size_of(params)}"])
    found = foreign.read(source)
    notes = [f"{source}: {found.config['architectures'][0]}, {size_of(found.params)}", *found.notes]
    if found.labels:
        notes.append(f"labels: {', '.join(found.labels)}")
    if found.unused:
        notes.append(f"not used, as the model has no such parameters: {', '.join(found.unused)}")
    return _Found(found.cfg, found.params, found.labels, found.config, notes)


def _cleaning_note(tokenizer: WordPiece) -> list[str]:
    """Returns notes on unusual text cleaning."""
    cleaning = tokenizer.cleaning
    if not cleaning.do_lower_case:
        return [
            "cased: text keeps its capitals" + ("" if cleaning.strip_accents else " and accents")
        ]
    capitals = sum(
        piece != piece.lower() for piece in tokenizer.pieces if not piece.startswith("[")
    )
    if not capitals:
        return []
    return [
        f"{capitals} tokens have capitals and never occur, since text is lowercased: "
        'tokenizer_config.json does not say "do_lower_case": false'
    ]


def _keep_original(source: pathlib.Path, config: dict | None, target: pathlib.Path) -> None:
    """Copies the original files of another program, for an export to write back."""
    if config is None:
        return
    target.mkdir()
    write_json(target / "config.json", config)
    for name in ORIGINAL_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def size_of(params: dict) -> str:
    """Returns the number of parameters in words."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6:.1f} million parameters"
