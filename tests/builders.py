"""Small models and files that tests of several packages use."""

import pathlib
from collections.abc import Callable, Iterable

import jax
import numpy as np
import pytest

from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES
from sibert_jax.model import ModelConfig


def model_config(**changes) -> ModelConfig:
    """Two layers of width 16, 40 tokens, sequences of up to 16."""
    small = {"vocab_size": 40, "max_len": 16, "width": 16, "ffn_width": 32}
    return ModelConfig(**(small | changes))


def write_vocabulary(path: pathlib.Path, tokens: Iterable[str]) -> int:
    """Writes a vocabulary file, special tokens first; returns its size."""
    tokens = [*SPECIAL_PIECES, *tokens]
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return len(tokens)


def random_params(init: Callable, *args, std: float = 0.03):
    """Parameters as `init` has them, gains near one and all else near zero; compiles nothing."""
    rng = np.random.default_rng(0)

    def leaf(path, x):
        is_gain = path[-1].key == "scale"
        return (is_gain + std * rng.normal(size=x.shape)).astype(x.dtype)

    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree_util.tree_map_with_path(leaf, shapes)


def prepare_tfds(directory, name: str, features: dict, splits: dict, file_format: str):
    """Prepares a TensorFlow dataset of the examples of each split; returns its directory.

    Args:
      name: of the dataset's class, "Mnli".
      features: `str` or `int` by name.
    """
    tfds = pytest.importorskip("tensorflow_datasets")
    kinds = {str: tfds.features.Text(), int: np.int64}
    features = tfds.features.FeaturesDict({key: kinds[kind] for key, kind in features.items()})

    def info(self):
        return self.dataset_info_from_configs(features=features)

    def generators(self, dl_manager):
        return {split: enumerate(examples) for split, examples in splits.items()}

    methods = {"_info": info, "_split_generators": generators, "_generate_examples": None}
    methods |= {"VERSION": tfds.core.Version("1.0.0"), "__module__": __name__}
    made = type(name, (tfds.core.GeneratorBasedBuilder,), methods)
    builder = made(data_dir=directory, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return directory / name.lower() / "1.0.0"
