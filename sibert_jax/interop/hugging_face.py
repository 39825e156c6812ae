"""Converts BERT from a Hugging Face directory to our `bert`, and back.

The directory holds `config.json`, `model.safetensors` and a vocabulary, as `save_pretrained` writes
them for `BertModel`, `BertForPreTraining`, `BertForMaskedLM` and the fine-tuned classes.
"""

import itertools
import pathlib
from typing import Any

import numpy as np

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop.config_json import rate_notes
from sibert_jax.interop.find_head import check_head, choose_head, needed_modules
from sibert_jax.interop.hugging_face_config import (
    LABELED,
    TheirConfig,
    architecture_of,
    kept_config,
    make_config,
    read_config,
)
from sibert_jax.interop.hugging_face_model import HuggingFaceModel, write_model
from sibert_jax.interop.names import SEGMENTS, Tensor, encoder_table, head_table
from sibert_jax.interop.per_layer import flatten, unflatten
from sibert_jax.interop.tensor_files import as_float32, dtype_notes, read_tensors, renamed
from sibert_jax.model import ModelConfig

WORDS = "bert.embeddings.word_embeddings.weight"
OUTPUT, OUTPUT_BIAS = "cls.predictions.decoder.weight", "cls.predictions.bias"
OUTPUT_BIAS_COPY = "cls.predictions.decoder.bias"


def read(directory: str | pathlib.Path) -> HuggingFaceModel:
    """Reads a directory, checking every name and shape.

    Raises:
      InteropError: a file is missing or broken, the architecture is not BERT, or a tensor is
        missing or has the wrong shape.
    """
    directory = user_path(directory)
    theirs = read_config(directory / "config.json")
    tensors = read_tensors(directory, theirs.architecture or "BertModel")
    tensors = renamed(tensors, _full_name, directory)
    notes = dtype_notes(tensors)
    unused = _without_copies(tensors, theirs, directory)
    head, note = choose_head(tensors, theirs)
    flat = {}
    for tensor in itertools.chain(encoder_table(theirs.cfg), head_table(head, theirs.tied)):
        if tensor.theirs in tensors:
            array = tensors.pop(tensor.theirs)
            flat[tensor.ours] = _imported(tensor, array, theirs, directory)
        elif tensor.ours.startswith("encoder/"):
            raise InteropError(
                f"{directory} has no tensor {tensor.theirs}, which BERT of "
                f"num_hidden_layers={theirs.cfg.depth} needs; config.json belongs to another "
                "model."
            )
    check_head(flat, head, theirs, directory)
    notes = [note, *notes] if note else notes
    rates = {"attention_probs_dropout_prob": theirs.attention_dropout}
    notes += rate_notes(rates, theirs.cfg.dropout)
    return HuggingFaceModel(
        cfg=theirs.cfg,
        params=unflatten(flat, scan_layers=theirs.cfg.scan_layers),
        head=head,
        labels=theirs.labels if head in LABELED else (),
        unused=tuple(sorted([*tensors, *unused])),
        notes=tuple(notes),
        config=kept_config(theirs, head, has_nsp="head/nsp/bias" in flat),
    )


def write(
    directory: str | pathlib.Path,
    cfg: ModelConfig,
    params: dict,
    head: str,
    labels: tuple[str, ...] = (),
    *,
    pad_id: int = 0,
    config: dict[str, Any] | None = None,
    dtype: str = "float32",
) -> str:
    """Writes `config.json` and `model.safetensors` into a new or empty directory.

    A model without segments gets a table of two zero rows, since transformers initializes a missing
    one randomly.

    Args:
      directory: created if necessary.
      cfg: the model's config; `arch` must be "bert".
      params: the model's parameters.
      head: the kind of head, as in `HuggingFaceModel.head`.
      labels: the labels of a classifier; (): "LABEL_0", ...
      pad_id: id of the padding token.
      config: the `config.json` that the parameters came with, to be kept; None: a new one, made
        from the sizes.
      dtype: dtype of the stored weights, "float32", "bfloat16" or "float16".

    Returns:
      The transformers class that loads the directory.

    Raises:
      InteropError: the directory is not empty, a parameter has no place in Hugging Face's BERT, or
        is too large for the dtype.
    """
    if cfg.arch != "bert":
        raise InteropError(
            f"model.arch={cfg.arch!r} cannot be written as Hugging Face's BERT; use sibert_jax's "
            "own format."
        )
    if cfg.attention_window:
        raise InteropError(
            f"model.attention_window={cfg.attention_window} cannot be written as Hugging Face's "
            "BERT, whose layers attend to all tokens; use sibert_jax's own format."
        )
    if cfg.positions != "learned":
        raise InteropError(
            f"model.positions={cfg.positions!r} cannot be written as Hugging Face's BERT, which "
            "has a position table; use sibert_jax's own format."
        )
    flat = flatten(params, scan_layers=cfg.scan_layers)
    tied = "head/output" not in flat
    if config is None:
        architecture = architecture_of(head, has_nsp="head/nsp/bias" in flat)
        if head in LABELED and not labels:
            labels = tuple(f"LABEL_{i}" for i in range(len(flat[f"{LABELED[head]}/bias"])))
        config = make_config(cfg, architecture, labels, tied, pad_id)
    architecture = config["architectures"][0]
    if cfg.num_segments == 1:
        flat[SEGMENTS] = np.zeros((2, cfg.width), np.float32)
    elif "type_vocab_size" in config and config["type_vocab_size"] == 1:  # read as two equal rows
        flat[SEGMENTS] = flat[SEGMENTS][:1]
    table = {t.ours: t for t in itertools.chain(encoder_table(cfg), head_table(head, tied))}
    if extra := sorted(set(flat) - set(table)):
        raise InteropError(f"parameter {extra[0]} has no place in {architecture}.")
    modules = needed_modules(head, tied)
    if lacking := [n for n in table if n.split("/")[1] in modules and n not in flat]:
        raise InteropError(
            f"the head has no {lacking[0]}, which {architecture} needs; Hugging Face's BERT has no "
            "place for it."
        )
    exported = {table[name].theirs: table[name].export(array) for name, array in flat.items()}
    if not tied:
        exported[OUTPUT_BIAS_COPY] = exported[OUTPUT_BIAS].copy()
    if not head:
        exported = {name.removeprefix("bert."): array for name, array in exported.items()}
    write_model(directory, config, exported, dtype)
    return architecture


def _full_name(name: str) -> str:
    """Returns the current name, with the "bert." that `BertModel` omits."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    is_bare = name.startswith(("embeddings.", "encoder.", "pooler."))
    return f"bert.{name}" if is_bare else name


def _without_copies(
    tensors: dict[str, np.ndarray], theirs: TheirConfig, directory: pathlib.Path
) -> list[str]:
    """Drops redundant tensors; returns those that transformers would not use either."""
    tensors.pop("bert.embeddings.position_ids", None)
    unused = []
    if OUTPUT_BIAS_COPY in tensors:
        # The bias that is added; with an untied output the other one is unused.
        added = tensors.pop(OUTPUT_BIAS_COPY)
        other = tensors.get(OUTPUT_BIAS, added)
        tensors[OUTPUT_BIAS] = added
        if not np.array_equal(added, other):
            if theirs.tied:
                raise InteropError(
                    f"{directory}: {OUTPUT_BIAS_COPY} differs from {OUTPUT_BIAS}, and "
                    "tie_word_embeddings says that they are the same; remove the wrong one."
                )
            unused = [OUTPUT_BIAS]
    copy = tensors.pop(OUTPUT, None) if theirs.tied else None
    if copy is not None and WORDS in tensors and not np.array_equal(copy, tensors[WORDS]):
        raise InteropError(
            f"{directory}: {OUTPUT} differs from {WORDS}, and tie_word_embeddings says that they "
            'are the same; set "tie_word_embeddings": false in config.json to use both.'
        )
    return unused


def _imported(
    tensor: Tensor, array: np.ndarray, theirs: TheirConfig, directory: pathlib.Path
) -> np.ndarray:
    wanted = _their_shape(tensor, theirs)
    if array.shape != wanted:
        raise InteropError(
            f"{directory}: {tensor.theirs} is {array.shape}, and the sizes in config.json ask for "
            f"{wanted}{' (one row per label)' if tensor.theirs.startswith('classifier.') else ''}."
        )
    array = as_float32(array, tensor.theirs, directory)
    if tensor.ours == SEGMENTS and len(array) == 1:
        array = np.repeat(array, 2, axis=0)
    return np.ascontiguousarray(tensor.import_(array))


def _their_shape(tensor: Tensor, theirs: TheirConfig) -> tuple[int, ...]:
    cfg, width, name = theirs.cfg, theirs.cfg.width, tensor.theirs
    if name == OUTPUT:
        return cfg.vocab_size, width
    tables = {"word": cfg.vocab_size, "position": cfg.max_len, "token_type": theirs.num_types}
    for kind, rows in tables.items():
        if f".{kind}_embeddings." in name:
            return rows, width
    rows = width
    if name == OUTPUT_BIAS:
        rows = cfg.vocab_size
    elif name.startswith("classifier."):
        rows = len(theirs.labels)
    elif ".intermediate.dense." in name:
        rows = cfg.ffn_width
    elif name.startswith(("qa_outputs.", "cls.seq_relationship.")):
        rows = 2
    if name.endswith(".bias") or ".LayerNorm." in name:
        return (rows,)
    is_down = ".output.dense." in name and ".attention." not in name
    return rows, cfg.ffn_width if is_down else width
