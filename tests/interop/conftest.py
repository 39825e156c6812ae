"""A small model of each kind, and its directory as Hugging Face keeps it."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.interop import hugging_face
from sibert_jax.model import Encoder, ModelConfig

BERT = ModelConfig(
    arch="bert",
    vocab_size=50,
    max_len=16,
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
    tokens = jax.ShapeDtypeStruct((1, 4), "int32")
    valid = jax.ShapeDtypeStruct((1, 4), "bool")
    shapes = jax.eval_shape(Encoder(cfg).init, jax.random.key(0), tokens, tokens, valid)
    rng = np.random.default_rng(0)
    return {
        "encoder": jax.tree.map(
            lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"]
        )
    }


@pytest.fixture(scope="session")
def cfg() -> ModelConfig:
    return BERT


@pytest.fixture(scope="session")
def encoder_params():
    return random_params


@pytest.fixture(scope="session")
def _hf_original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("original")
    hugging_face.write(directory, BERT, random_params(BERT), head="")
    return directory


@pytest.fixture
def hf_directory(_hf_original, tmp_path):
    """BERT as Hugging Face keeps it."""
    return shutil.copytree(_hf_original, tmp_path / "source")


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("".join(f"{piece}\n" for piece in [*special, *(f"w{i}" for i in range(45))]))
    return path


def edit_tensors(directory, new_tensors):
    """Replace the tensors by a function of them; those that are None are dropped."""
    path = directory / "model.safetensors"
    tensors = new_tensors(safetensors.load_file(path))
    safetensors.save_file({k: x for k, x in tensors.items() if x is not None}, path)


def edit_config(directory, drop=(), **changes):
    path = directory / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: x for key, x in values.items() if key not in drop}))


def split(directory):
    """Write two files and an index instead of one file."""
    tensors, places = safetensors.load_file(directory / "model.safetensors"), {}
    for i in range(2):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        safetensors.save_file(part, directory / name)
        places |= dict.fromkeys(part, name)
    (directory / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
