"""A vocabulary that spells every ASCII text, and SQuAD files made by hand."""

import json
import pathlib
import string

import pytest

from sibert_jax.data import Tokenizer
from sibert_jax.data.cache import Cache
from sibert_jax.data.tokenizer import SPECIAL_PIECES

LETTERS = string.ascii_lowercase + string.digits
WORDS = ("the", "oil", "crisis", "began", "in", "cafe", "##ing", "who")
PIECES = (*SPECIAL_PIECES, *string.punctuation, *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS)


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(PIECES)


@pytest.fixture
def cache(tmp_path):
    return Cache(str(tmp_path / "cache"), print)


def entry(key, question, *answers, **more):
    golds = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": question, "answers": golds, **more}


def squad(*paragraphs):
    """A data set of (context, entries) pairs."""
    paragraphs = [{"context": context, "qas": entries} for context, entries in paragraphs]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


@pytest.fixture
def write(tmp_path):
    def write(name, content) -> pathlib.Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write
