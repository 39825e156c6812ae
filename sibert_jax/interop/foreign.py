"""Hugging Face's models by the kind that `config.json` names: BERT and GPT-2."""

import pathlib

from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop import gpt2, hugging_face
from sibert_jax.interop.hugging_face_config import read_json
from sibert_jax.interop.hugging_face_model import HuggingFaceModel

READERS = {"bert": hugging_face.read, gpt2.MODEL_TYPE: gpt2.read}


def read(directory: str | pathlib.Path) -> HuggingFaceModel:
    """Reads a directory of either kind; see `hugging_face.read` and `gpt2.read`."""
    path = user_path(directory) / "config.json"
    kind = read_json(path).get("model_type") or "bert"
    if kind not in READERS:
        raise InteropError(
            f"{path}: model_type is {kind!r}, and only {' and '.join(READERS)} can be read."
        )
    return READERS[kind](directory)
