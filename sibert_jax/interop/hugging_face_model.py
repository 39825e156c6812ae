"""A model from a Hugging Face directory, and the directory of one."""

import dataclasses
import pathlib
from typing import Any

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class HuggingFaceModel:
    """The model in a directory, in our terms.

    Attributes:
      cfg: sizes; `dropout` is theirs, `scan_layers` true.
      params: {"encoder": ...} and, of a BERT with a pooler or a head, "head"; float32.
      head: "pretraining", "classification", "question_answering", "token_classification" or "": no
        head.
      labels: what the outputs of a classifier mean, in order; () of other heads.
      unused: tensors of theirs that our model has no place for.
      notes: what the user should know, a sentence each.
      config: `config.json` as it came, for these parameters in float32.
    """

    cfg: ModelConfig
    params: dict
    head: str
    labels: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    config: dict[str, Any]


def new_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """Makes a directory; refuses one with anything in it."""
    directory = user_path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InteropError(f"{directory} is there and not empty; name a new directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InteropError(f"{directory} cannot be made: {error}.") from None
    return directory
