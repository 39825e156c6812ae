"""Converts GPT-2 from a Hugging Face directory to our `gpt`, and back.

The directory holds `config.json`, `model.safetensors` and a vocabulary, as `save_pretrained` writes
them for `GPT2LMHeadModel` and `GPT2Model`.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop.config_json import (
    IMPORTED,
    POSITIVE,
    RATE,
    SIZE,
    SMALL,
    check_required,
    checked,
    checked_sizes,
    first_architecture,
    rate_notes,
    read_json,
    stored_in,
)
from sibert_jax.interop.gpt2_names import DECODER, OUTPUT, TOKENS, Row, table
from sibert_jax.interop.hugging_face_model import HuggingFaceModel, write_model
from sibert_jax.interop.per_layer import flatten, unflatten
from sibert_jax.interop.tensor_files import as_float32, dtype_notes, read_tensors, renamed
from sibert_jax.model import ModelConfig

MODEL_TYPE = "gpt2"
LANGUAGE_MODEL, BARE = "GPT2LMHeadModel", "GPT2Model"
# Keys and accepted values; the first is the default of transformers.
REQUIRED = (
    ("model_type", (MODEL_TYPE,)),
    ("activation_function", ("gelu_new", "gelu_pytorch_tanh")),
    ("scale_attn_weights", (True,)),
    ("scale_attn_by_inverse_layer_idx", (False,)),
    ("add_cross_attention", (False,)),
    ("tie_word_embeddings", (True,)),
)
# `config_json.Key` tuples with the defaults of transformers' GPT2Config.
KEYS = (
    ("vocab_size", "vocab_size", SIZE, None),
    ("max_len", "n_positions", SIZE, None),
    ("width", "n_embd", SIZE, None),
    ("depth", "n_layer", SIZE, None),
    ("num_heads", "n_head", SIZE, None),
    ("norm_eps", "layer_norm_epsilon", SMALL, 1e-5),
    ("dropout", "resid_pdrop", RATE, 0.1),
    ("init_std", "initializer_range", POSITIVE, 0.02),
)
OTHER_RATES = ("embd_pdrop", "attn_pdrop")
MASKS = (".attn.bias", ".attn.masked_bias")  # in older files; they follow from n_positions


def read(directory: str | pathlib.Path) -> HuggingFaceModel:
    """Reads a directory, checking every name and shape.

    Raises:
      InteropError: a file is missing or broken, the architecture is not GPT-2, or a tensor is
        missing or has the wrong shape.
    """
    directory = user_path(directory)
    path = directory / "config.json"
    config = read_json(path)
    cfg, notes = _sizes(path, config)
    architecture = first_architecture(path, config) or LANGUAGE_MODEL
    tensors = renamed(read_tensors(directory, architecture), _full_name, directory)
    tensors = {name: array for name, array in tensors.items() if not name.endswith(MASKS)}
    notes += dtype_notes(tensors)
    flat = {row.ours: _part(row, tensors, directory) for row in table(cfg)}
    _drop_copy_of_table(tensors, directory)
    unused = set(tensors) - {row.theirs for row in table(cfg)}
    if architecture not in (LANGUAGE_MODEL, BARE):
        notes.append(f"the head of {architecture} is not supported; the rest is read as {BARE}")
        architecture = BARE
    return HuggingFaceModel(
        cfg=cfg,
        params=unflatten(flat, scan_layers=cfg.scan_layers),
        head="",
        labels=(),
        unused=tuple(sorted(unused)),
        notes=tuple(notes),
        config=stored_in(config, "float32") | {"architectures": [architecture]},
    )


def write(
    directory: str | pathlib.Path,
    cfg: ModelConfig,
    params: dict,
    *,
    end_id: int,
    config: dict[str, Any] | None = None,
    dtype: str = "float32",
) -> str:
    """Writes `config.json` and `model.safetensors` into a new or empty directory.

    Args:
      directory: created if necessary.
      cfg: the model's config; `arch` must be "gpt".
      params: the model's parameters.
      end_id: id of the end-of-document token.
      config: the `config.json` that the parameters came with, to be kept; None: a new one for
        `GPT2LMHeadModel`, made from the sizes.
      dtype: dtype of the stored weights, "float32", "bfloat16" or "float16".

    Returns:
      The transformers class that loads the directory.

    Raises:
      InteropError: the directory is not empty, a parameter has no place in GPT-2, or is too large
        for the dtype.
    """
    if cfg.arch != "gpt" or cfg.attention_window:
        raise InteropError(
            f"model.arch={cfg.arch!r} with model.attention_window={cfg.attention_window} cannot "
            "be written as Hugging Face's GPT-2; use sibert_jax's own format."
        )
    if cfg.positions != "learned":
        raise InteropError(
            f"model.positions={cfg.positions!r} cannot be written as Hugging Face's GPT-2, which "
            "has a position table; use sibert_jax's own format."
        )
    flat = flatten(params, scan_layers=cfg.scan_layers)
    rows = list(table(cfg))
    if extra := sorted(set(flat) - {row.ours for row in rows}):
        raise InteropError(f"parameter {extra[0]} has no place in {LANGUAGE_MODEL}.")
    if config is None:
        config = _make_config(cfg, end_id)
    (architecture,) = config["architectures"]
    whole: dict[str, np.ndarray] = {}
    for row in rows:
        columns = whole.setdefault(row.theirs, np.empty(row.shape, np.float32))[..., row.columns]
        columns[...] = np.reshape(flat[row.ours], columns.shape)
    if architecture == BARE:
        whole = {name.removeprefix(DECODER): array for name, array in whole.items()}
    write_model(directory, config, whole, dtype)
    return architecture


def _sizes(path: pathlib.Path, config: dict[str, Any]) -> tuple[ModelConfig, list[str]]:
    """Returns our sizes, and notes for the user on theirs."""
    check_required(path, config, REQUIRED)
    sizes = checked_sizes(path, config, KEYS)
    rates = {key: checked(path, config, key, RATE, 0.1) for key in OTHER_RATES}
    cfg = ModelConfig(
        arch="gpt",
        **sizes,
        ffn_width=checked(path, config, "n_inner", SIZE, 4 * sizes["width"]),
        num_segments=1,
        **IMPORTED,
    )
    return cfg, rate_notes(rates, cfg.dropout)


def _make_config(cfg: ModelConfig, end_id: int) -> dict[str, Any]:
    """Returns a `config.json` for one of our models, as transformers reads it."""
    sizes = dataclasses.asdict(cfg)
    config = {"architectures": [LANGUAGE_MODEL]}
    config |= {key: accepted[0] for key, accepted in REQUIRED}
    config |= {key: sizes[ours] for ours, key, _, _ in KEYS}
    config |= dict.fromkeys(OTHER_RATES, cfg.dropout)
    return config | {
        "n_inner": cfg.ffn_width,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def _full_name(name: str) -> str:
    """Returns the name in `GPT2LMHeadModel`; `GPT2Model` omits "transformer."."""
    is_bare = name.startswith(("wte.", "wpe.", "h.", "ln_f."))
    return f"{DECODER}{name}" if is_bare else name


def _part(row: Row, tensors: dict[str, np.ndarray], directory: pathlib.Path) -> np.ndarray:
    if row.theirs not in tensors:
        raise InteropError(
            f"{directory} has no tensor {row.theirs}, which GPT-2 of the sizes in config.json "
            "needs; put the files of one model there."
        )
    array = tensors[row.theirs]
    if array.shape != row.shape:
        raise InteropError(
            f"{directory}: {row.theirs} is {array.shape}, and the sizes in config.json ask for "
            f"{row.shape}."
        )
    array = as_float32(array[..., row.columns], row.theirs, directory)
    return np.ascontiguousarray(array).reshape(row.our_shape)


def _drop_copy_of_table(tensors: dict[str, np.ndarray], directory: pathlib.Path) -> None:
    copy = tensors.pop(OUTPUT, None)
    if copy is not None and not np.array_equal(copy, tensors[TOKENS]):
        raise InteropError(
            f"{directory}: {OUTPUT} differs from {TOKENS}, but sibert_jax uses the token table as "
            "output table; remove the wrong one."
        )
