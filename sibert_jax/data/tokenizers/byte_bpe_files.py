"""GPT-2's vocabulary files: token ids and merges.

They are `vocab.json` with `merges.txt` and `tokenizer_config.json` beside it, or `tokenizer.json`
if a directory has no `vocab.json`.
"""

import json
import pathlib
from typing import Any, NamedTuple, TypeAlias

from sibert_jax.data.text_files import read_lines
from sibert_jax.data.tokenizers.vocabulary import (
    LIBRARY,
    LIBRARY_CLASSES,
    PIECES,
    SETTINGS,
    AddedToken,
    added_token,
    added_tokens,
    read_object,
    with_added,
)
from sibert_jax.errors import DataError

IDS, MERGES = "vocab.json", "merges.txt"
VERSION = "#version: 0.2"  # first line of merges.txt
CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast", *LIBRARY_CLASSES)

Merge: TypeAlias = tuple[str, str]


class BPEVocabulary(NamedTuple):
    """Tokens in id order, and pairs of tokens in merge order."""

    pieces: tuple[str, ...]
    merges: tuple[Merge, ...]


def is_byte_bpe(path: pathlib.Path) -> bool:
    """Tells whether a vocabulary file or directory is of byte-level BPE."""
    if not path.is_dir():
        return path.suffix == ".json"
    if any((path / name).is_file() for name in (IDS, MERGES)):
        return True
    library = path / LIBRARY
    if (path / PIECES).is_file() or not library.is_file():
        return False
    model = read_object(library).get("model")
    return isinstance(model, dict) and model.get("type") == "BPE"


def read_byte_bpe(path: pathlib.Path) -> BPEVocabulary:
    """Reads a `vocab.json` and the files beside it, or the files of a directory.

    Raises:
      DataError: a file is missing or broken, or describes a tokenizer other than GPT-2's.
    """
    directory = path if path.is_dir() else path.parent
    file = directory / IDS if path.is_dir() else path
    if path.is_dir() and not file.is_file() and (path / LIBRARY).is_file():
        file = path / LIBRARY
        ids, merges, added = _read_library(file)
    else:
        if not file.is_file():
            raise DataError(f"{file} is missing; it defines the token ids")
        ids, merges, added = read_object(file), _read_merges(directory / MERGES), []
    if sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise DataError(f"{file}: the token ids must be 0, 1, 2, ... without gaps")
    pieces = tuple(sorted(ids, key=ids.__getitem__))
    pieces = with_added(pieces, [*added, *_added_by_settings(directory)], directory)
    return BPEVocabulary(pieces, merges)


def write_byte_bpe(path: pathlib.Path, vocabulary: BPEVocabulary) -> None:
    """Writes the files that `read_byte_bpe` reads: `path` and the other two beside it."""
    settings = {"tokenizer_class": CLASSES[0], "add_prefix_space": False}
    path.with_name(SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    lines = [VERSION, *map(" ".join, vocabulary.merges)]
    text = "".join(f"{line}\n" for line in lines)
    path.with_name(MERGES).write_text(text, encoding="utf-8")
    ids = {piece: i for i, piece in enumerate(vocabulary.pieces)}
    path.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


def _read_merges(path: pathlib.Path) -> tuple[Merge, ...]:
    """Reads the pairs of `merges.txt`, one per line after a version line."""
    if not path.is_file():
        raise DataError(f"{path} is missing; it holds the merges and must be next to {IDS}")
    merges = []
    for number, line in enumerate(read_lines(path), start=1):
        if number == 1 and line.startswith("#version"):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise DataError(
                f"{path}: line {number} is {line!r}, expected two tokens separated by a space"
            )
        merges.append((pair[0], pair[1]))
    return tuple(merges)


def _read_library(path: pathlib.Path) -> tuple[dict[str, int], tuple[Merge, ...], list[AddedToken]]:
    """Reads ids, merges and added tokens of a `tokenizer.json`."""
    values = read_object(path)
    try:
        model, splitter = values["model"], values["pre_tokenizer"]
        wanted = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        for key, value in wanted.items():
            if splitter[key] != value:
                raise DataError(
                    f"{path}: pre_tokenizer.{key} is {splitter[key]!r}, but only {value!r} is "
                    "supported"
                )
        if values["normalizer"] is not None:
            raise DataError(
                f"{path} has a normalizer, but GPT-2's tokenizer does not change the text"
            )
        merges = tuple(tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"])
        return model["vocab"], merges, [added_token(t["id"], t) for t in values["added_tokens"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a file of GPT-2's tokenizer (looking for {error})"
        ) from None


def _added_by_settings(directory: pathlib.Path) -> list[AddedToken]:
    """Reads the added tokens of `tokenizer_config.json`; rejects settings that change ids."""
    path = directory / SETTINGS
    settings: dict[str, Any] = read_object(path) if path.is_file() else {}
    if (found := settings.get("tokenizer_class", CLASSES[0])) not in CLASSES:
        raise DataError(
            f"{path}: tokenizer_class is {found!r}, but the only supported byte-level BPE is "
            "GPT-2's"
        )
    if settings.get("add_prefix_space"):
        raise DataError(f"{path}: add_prefix_space is true, but only false is supported")
    return added_tokens(path, settings.get("added_tokens_decoder", {}))
