"""A model read from a Hugging Face directory, and the writing of one."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop.config_json import stored_in
from sibert_jax.interop.tensor_files import SINGLE, in_dtype, write_safetensors
from sibert_jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class HuggingFaceModel:
    """A Hugging Face model in our format.

    Attributes:
      cfg: our config; `dropout` is theirs, `scan_layers` is true.
      params: {"encoder": ...} and, for a BERT with a pooler or a head, "head"; float32.
      head: "pretraining", "classification", "question_answering", "token_classification" or "" for
        no head with parameters, as in GPT-2.
      labels: names of a classifier's outputs, in order; () for other heads.
      unused: their tensors that our model does not use.
      notes: notes for the user, one sentence each.
      config: the original `config.json`, adapted to these parameters in float32.
    """

    cfg: ModelConfig
    params: dict
    head: str
    labels: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    config: dict[str, Any]


def new_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """Creates a directory; raises InteropError if it exists and is not empty."""
    directory = user_path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InteropError(f"{directory} exists and is not empty; name a new directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InteropError(f"{directory} cannot be created: {error}.") from None
    return directory


def write_model(
    directory: str | pathlib.Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    dtype: str,
) -> None:
    """Writes `config.json` and `model.safetensors` in a dtype into a new or empty directory.

    Raises:
      InteropError: the directory is not empty, or a weight is too large for the dtype.
    """
    tensors = in_dtype(tensors, dtype)
    directory, config = new_directory(directory), stored_in(config, dtype)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_safetensors(directory / SINGLE, tensors)
