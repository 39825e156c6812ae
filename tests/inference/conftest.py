"""Small trained models in their directories."""

import dataclasses
import functools

import jax
import pytest

import sibert_jax
from sibert_jax.interop import hugging_face
from sibert_jax.tasks.classification.task import ClassificationHead
from sibert_jax.tasks.pretraining.heads import StandardHead
from sibert_jax.tasks.question_answering.task import SpanHead
from sibert_jax.tasks.task import EncoderWithHead
from tests.builders import random_params, write_vocabulary
from tests.interop.conftest import BERT
from tests.tasks.conftest import small_run, train_one
from tests.train.conftest import _standard_promotion, cache, config, text

__all__ = ["_standard_promotion", "cache", "config", "small_run", "text", "train_one"]

CFG = dataclasses.replace(BERT, init_std=0.5, max_len=24)
HEADS = {
    "pretraining": StandardHead(CFG, tied=True, nsp=True, log_frequency=()),
    "classification": ClassificationHead(CFG, 3),
    "question_answering": SpanHead(CFG),
}
LABELS = ("no", "maybe", "yes")
BATCH = {
    "tokens": jax.numpy.ones((1, 8), "int32"),
    "segments": jax.numpy.ones((1, 8), "int32"),
    "attention_mask": jax.numpy.ones((1, 8), bool),
    "masked_positions": jax.numpy.ones((1, 2), "int32"),
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """The directory of a BERT of Hugging Face's with one of the heads, "" for none."""

    @functools.cache
    def make(head: str):
        directory = tmp_path_factory.mktemp(head or "encoder") / "bert"
        kind = head or "classification"
        params = random_params(EncoderWithHead(CFG, HEADS[kind]).init, BATCH, std=0.3)["params"]
        if not head:
            del params["head"]
        labels = LABELS if head == "classification" else ()
        hugging_face.write(directory, CFG, params, head, labels)
        write_vocabulary(directory / "vocab.txt", [f"w{i}" for i in range(45)])
        return directory

    return make


@pytest.fixture(scope="session")
def model(bert):
    """The same, loaded; its programs are compiled once."""
    return functools.cache(lambda head: sibert_jax.load(bert(head)))
