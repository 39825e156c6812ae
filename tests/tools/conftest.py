"""The tiny run of tests/train."""

from tests.train.conftest import _standard_promotion, cache, config, text, train_one

__all__ = ["_standard_promotion", "cache", "config", "text", "train_one"]
