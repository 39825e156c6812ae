"""A vocabulary that spells every ASCII text, and small SQuAD files."""

import json
import pathlib
import string

import pytest

from sibert_jax.data import WordPiece
from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES

LETTERS = string.ascii_lowercase + string.digits
WORDS = ("the", "oil", "crisis", "began", "in", "cafe", "##ing", "who")
TOKENS = (*SPECIAL_PIECES, *string.punctuation, *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS)
TOKENIZER = WordPiece(TOKENS)
SHARED = pathlib.Path(__file__).parents[4] / "shared/data"


def entry(key, question, *answers, **more):
    golds = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": question, "answers": golds, **more}


def squad(*paragraphs):
    """A data set of (context, entries) pairs."""
    paragraphs = [{"context": context, "qas": entries} for context, entries in paragraphs]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def without(content, *keys):
    """The content with these keys removed from every object."""
    if isinstance(content, list):
        return [without(part, *keys) for part in content]
    if not isinstance(content, dict):
        return content
    return {key: without(part, *keys) for key, part in content.items() if key not in keys}


@pytest.fixture
def write(tmp_path):
    def write(name, content) -> pathlib.Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write
