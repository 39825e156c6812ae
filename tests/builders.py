"""Small models and files that tests of several packages use."""

import pathlib
from collections.abc import Iterable

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
