"""A small BERT, its directory as Hugging Face keeps it, and changes to that directory."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.interop import hugging_face
from sibert_jax.model import Encoder, ModelConfig
from tests.builders import model_config, write_vocabulary

WEIGHTS = "model.safetensors"
BERT = model_config(
    arch="bert",
    vocab_size=50,
    width=12,
    depth=3,
    num_heads=3,
    ffn_width=20,
    qkv_bias=True,
    norm_eps=1e-12,
    init_std=0.1,
)


@functools.cache
def random_params(cfg: ModelConfig) -> dict:
    """Random parameters of an encoder, biases and gains too."""
    tokens, valid = (jax.ShapeDtypeStruct((1, 4), dtype) for dtype in ("int32", "bool"))
    shapes = jax.eval_shape(Encoder(cfg).init, jax.random.key(0), tokens, tokens, valid)
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return {"encoder": jax.tree.map(draw, shapes["params"])}


@pytest.fixture(scope="session")
def _hf_original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("original")
    hugging_face.write(directory, BERT, random_params(BERT), head="")
    write_vocabulary(directory / "vocab.txt", [f"w{i}" for i in range(45)])
    return directory


@pytest.fixture
def source(_hf_original, tmp_path):
    """The directory of BERT with its vocabulary, to be changed."""
    return shutil.copytree(_hf_original, tmp_path / "source")


def tensors_of(directory) -> dict:
    return safetensors.load_file(directory / WEIGHTS)


def edit_tensors(directory, new=(), rename=lambda name: name):
    """Adds tensors, drops those that are None, and renames all."""
    tensors = {rename(name): x for name, x in (tensors_of(directory) | dict(new)).items()}
    safetensors.save_file({k: x for k, x in tensors.items() if x is not None}, directory / WEIGHTS)


def config_of(directory) -> dict:
    return json.loads((directory / "config.json").read_text())


def edit_config(directory, drop=(), **changes):
    values = config_of(directory) | changes
    kept = {key: x for key, x in values.items() if key not in drop}
    (directory / "config.json").write_text(json.dumps(kept))


def split(directory):
    """Writes two files and an index instead of one file."""
    tensors, places = tensors_of(directory), {}
    for i in range(2):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        safetensors.save_file(part, directory / name)
        places |= dict.fromkeys(part, name)
    (directory / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def zeros(**shapes):
    """Tensors of zeros; "__" stands for "." in their names."""
    return {k.replace("__", "."): np.zeros(shape, np.float32) for k, shape in shapes.items()}


# Tensors of heads, as `transformers` names them.
POOLER = zeros(pooler__dense__weight=(12, 12), pooler__dense__bias=12)
CLASSIFIER = zeros(classifier__weight=(2, 12), classifier__bias=2)
MLM = "cls.predictions."
TRANSFORM = zeros(
    cls__predictions__transform__dense__weight=(12, 12),
    cls__predictions__transform__dense__bias=12,
    cls__predictions__transform__LayerNorm__weight=12,
    cls__predictions__transform__LayerNorm__bias=12,
)
BIAS, BIAS_COPY = zeros(cls__predictions__bias=50), zeros(cls__predictions__decoder__bias=50)
