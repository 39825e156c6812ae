"""Small models and files that tests of several packages use."""

import pathlib
from collections.abc import Callable, Iterable

import jax
import numpy as np

from sibert_jax.data.tokenizer import SPECIAL_PIECES
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
