"""GPT-2 equal to Hugging Face's `transformers`: outputs to 1e-5, weights to the bit, ids alike.

Needs torch and transformers here or in the Python that HF_PY names.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sibert_jax
from sibert_jax.data import ByteBPE, Tokenizer
from sibert_jax.interop import gpt2
from sibert_jax.interop.__main__ import main
from sibert_jax.model import Encoder
from tests.builders import random_params

from .conftest import BERT
from .gpt2_side import CASES, LENGTH, TEXTS, VOCAB
from .transformers_test import on_their_side

pytestmark = pytest.mark.slow
SIDE = pathlib.Path(__file__).with_name("gpt2_side.py")
OURS = dataclasses.replace(
    BERT, arch="gpt", vocab_size=VOCAB, max_len=LENGTH, num_segments=1, norm_eps=1e-5
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """DIR/CASE: theirs, what it computes (wanted), imported, exported, and what that computes."""
    directory = tmp_path_factory.mktemp("models")
    on_their_side("make", directory, SIDE)
    for case in CASES:
        here = directory / case
        assert main(["import", str(here / "theirs"), str(here / "imported")]) == 0
        assert main(["export", str(here / "imported"), str(here / "exported")]) == 0
    gpt2.write(directory / "ours/exported", OURS, our_params(), end_id=VOCAB - 1)
    ByteBPE.learned(TEXTS, VOCAB).save(directory / "ours/exported/vocab.json")
    on_their_side("load", directory, SIDE)
    return directory


def our_params():
    tokens, valid = (jax.ShapeDtypeStruct((1, 4), dtype) for dtype in ("int32", "bool"))
    params = random_params(Encoder(OURS).init, tokens, tokens, valid, std=0.3)
    return {"encoder": params["params"]}


def assert_computes(directory, wanted):
    """A directory of Hugging Face's, loaded by us, against outputs of theirs."""
    model, outputs = sibert_jax.load(directory), dict(np.load(wanted / "outputs.npz"))
    tokens_BL = jnp.asarray(outputs.pop("tokens"), jnp.int32)
    batch = {"tokens": tokens_BL, "segments": tokens_BL * 0, "attention_mask": tokens_BL >= 0}
    if "logits" in outputs:
        found = model.module.apply({"params": model.params}, batch)[0].logits()
    else:
        encoder = {"params": model.params["encoder"]}
        found, _ = Encoder(model.config).apply(encoder, *batch.values())
    (expected,) = outputs.values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_ours_computes_what_theirs_does(models, case):
    for directory in ("theirs", "imported", "exported"):
        assert_computes(models / case / directory, models / case / "wanted")


def test_a_gpt2_continues_a_text(models):
    model = sibert_jax.load(models / "language-model/theirs")
    text = model.generate("the hats", 4)
    assert isinstance(text, str)
    assert model.generate(["the", "the hats"], 4)[1] == text


def test_theirs_computes_what_ours_does(models):
    here = models / "ours"
    assert json.loads((here / "found/problems.json").read_text()) == {}
    assert_computes(here / "exported", here / "found")


@pytest.mark.parametrize("case", CASES)
def test_what_came_in_goes_out(models, case):
    wanted, found = models / case / "wanted", models / case / "found"
    assert json.loads((found / "problems.json").read_text()) == {}
    before, after = np.load(wanted / "weights.npz"), np.load(found / "weights.npz")
    assert sorted(before) == sorted(after)
    for key in before:
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)


@pytest.mark.parametrize(
    ("case", "directory"),
    [*((case, directory) for case in CASES for directory in ("theirs", "imported", "exported")),
     ("ours", "exported")],
)  # fmt: skip
def test_ids_are_theirs(models, case, directory):
    described = models / case / ("found" if case == "ours" else "wanted")
    path = models / case / directory
    path = path / "vocab.json" if directory == "imported" else path
    ids = Tokenizer.load(path).encode_batch(TEXTS)
    assert [row.tolist() for row in ids] == json.loads((described / "ids.json").read_text())
    assert Tokenizer.load(path).decode(np.concatenate(ids)) == "".join(TEXTS)
