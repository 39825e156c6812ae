"""Reads Hugging Face's BERT or GPT-2, whichever `config.json` names."""

import pathlib

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop import gpt2, hugging_face
from sibert_jax.interop.config_json import read_json, value_of
from sibert_jax.interop.hugging_face_model import HuggingFaceModel

READERS = {"bert": hugging_face.read, gpt2.MODEL_TYPE: gpt2.read}


def read(directory: str | pathlib.Path) -> HuggingFaceModel:
    """Reads a directory of either model; see `hugging_face.read` and `gpt2.read`."""
    path = user_path(directory) / "config.json"
    kind = value_of(read_json(path), "model_type", "bert")
    if kind not in READERS:
        raise InteropError(
            f"{path}: model_type is {kind!r}, but only {' and '.join(READERS)} are supported; "
            "name the directory of such a model."
        )
    return READERS[kind](directory)
