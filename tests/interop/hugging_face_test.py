"""BERT's weights pass to Hugging Face and back; what transformers loads is loaded.

Against transformers itself: transformers_test.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.errors import InteropError
from sibert_jax.interop import hugging_face
from sibert_jax.model import Encoder

from .conftest import (
    BERT,
    BIAS,
    BIAS_COPY,
    CLASSIFIER,
    MLM,
    POOLER,
    TRANSFORM,
    config_of,
    edit_config,
    edit_tensors,
    random_params,
    split,
    tensors_of,
    zeros,
)

# As `bert-base-uncased`'s own file names them, layer 0 and what surrounds the layers.
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LINEAR_AND_NORM = (
    "embeddings.LayerNorm",
    *(f"encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")),
    *(f"encoder.layer.0.{name}.dense" for name in ("attention.output", "intermediate", "output")),
    *(f"encoder.layer.0.{name}.LayerNorm" for name in ("attention.output", "output")),
)
THEIR_NAMES = {f"embeddings.{name}.weight" for name in TABLES} | {
    f"{name}.{kind}" for name in LINEAR_AND_NORM for kind in ("weight", "bias")
}
TYPES = "embeddings.token_type_embeddings.weight"


def features(cfg, params):
    tokens, valid = jnp.arange(8, dtype=jnp.int32)[None], jnp.ones((1, 8), bool)
    return jax.jit(Encoder(cfg).apply)({"params": params["encoder"]}, tokens, tokens % 2, valid)[0]


@pytest.mark.parametrize(
    "changes",
    [{"scan_layers": False, "num_segments": 1}, pytest.param({}, marks=pytest.mark.slow)],
)
def test_parameters_go_to_their_names_and_come_back(tmp_path, changes):
    """A model without segments has two rows of zeros for them."""
    cfg = dataclasses.replace(BERT, depth=1, **changes)
    params = random_params(cfg)
    hugging_face.write(tmp_path, cfg, params, head="")
    written = tensors_of(tmp_path)
    assert set(written) == THEIR_NAMES
    assert config_of(tmp_path)["type_vocab_size"] == 2
    assert written[TYPES].any() == ("num_segments" not in changes)
    found = hugging_face.read(tmp_path)
    restored = {"branch_scaling": "none", "scan_layers": True, "num_segments": 2}
    assert found.cfg == dataclasses.replace(cfg, **restored)
    assert (found.head, found.unused, found.notes) == ("", (), ())
    ours, theirs = features(cfg, params), features(found.cfg, found.params)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


DEFAULTS = {
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "type_vocab_size": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: edit_config(d, drop=[*DEFAULTS, "architectures", "model_type", "pad_token_id"]),
        lambda d: edit_config(d, **dict.fromkeys(DEFAULTS)),
        lambda d: edit_config(d, hidden_act="gelu_python", torch_dtype="bfloat16", unknown=[1]),
        lambda d: edit_tensors(d, rename=lambda n: n.replace("Norm.weight", "Norm.gamma")),
        lambda d: edit_tensors(d, rename=lambda n: n.replace("Norm.bias", "Norm.beta")),
        lambda d: edit_tensors(d, rename=lambda n: f"bert.{n}"),
        split,
    ],
)
def test_same_model_written_otherwise_is_the_same(source, change):
    edit_config(source, **DEFAULTS)
    wanted = hugging_face.read(source)
    change(source)
    found = hugging_face.read(source)
    assert (found.cfg, found.head, found.unused) == (wanted.cfg, "", ())
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)


def rewritten(found, directory):
    """Writes what was read; returns the class that it was written as."""
    return hugging_face.write(directory, found.cfg, found.params, found.head, config=found.config)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_other_float_types_become_float32(source, dtype):
    edit_tensors(source, {k: x.astype(dtype) for k, x in tensors_of(source).items()})
    edit_config(source, torch_dtype=np.dtype(dtype).name)
    found = hugging_face.read(source)
    assert found.notes == (f"weights of {np.dtype(dtype).name} are kept and exported as float32",)
    assert rewritten(found, source / "again") == "BertModel"
    assert config_of(source / "again")["torch_dtype"] == "float32"
    again = tensors_of(source / "again")
    for name, array in tensors_of(source).items():
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], array.astype(np.float32))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_token_types_comes_and_goes(source, count):
    rows = np.random.default_rng(1).normal(size=(count, 12)).astype(np.float32)
    edit_tensors(source, {TYPES: rows})
    edit_config(source, type_vocab_size=count)
    found = hugging_face.read(source)
    table = found.params["encoder"]["embed"]["segment"]
    np.testing.assert_array_equal(table, rows if count > 1 else np.repeat(rows, 2, axis=0))
    rewritten(found, source / "again")
    np.testing.assert_array_equal(tensors_of(source / "again")[TYPES], rows)
    assert config_of(source / "again")["type_vocab_size"] == count


CLASSIFICATION = "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("architecture", "tensors", "head", "note"),
    [
        (CLASSIFICATION, POOLER | CLASSIFIER, "classification", None),
        (CLASSIFICATION, POOLER, "", "no classifier.weight: read as BertModel"),
        (None, POOLER | CLASSIFIER, "", "names no architecture, so the classifier may be"),
        ("BertForTokenClassification", CLASSIFIER, "token_classification", None),
        ("BertForMultipleChoice", POOLER | CLASSIFIER, "", "the head of BertForMultipleChoice is"),
        ("BertForNextSentencePrediction", POOLER, "", "the head of BertForNextSentencePrediction"),
        ("BertForMaskedLM", TRANSFORM | BIAS, "pretraining", None),
        ("BertForMaskedLM", TRANSFORM | BIAS_COPY, "pretraining", None),
        (None, TRANSFORM | BIAS | BIAS_COPY, "pretraining", None),
    ],
)
def test_class_decides_which_head_is_read(source, architecture, tensors, head, note):
    edit_config(source, architectures=architecture and [architecture])
    edit_tensors(source, tensors | zeros(adapter__weight=3))
    found = hugging_face.read(source)
    assert found.head == head
    kept_as = (architecture or "BertForMaskedLM") if head else "BertModel"
    assert found.config["architectures"] == [kept_as]
    assert len(found.notes) == (note is not None)
    assert note is None or note in found.notes[0]
    assert "adapter.weight" in found.unused
    if not head and "classifier.weight" in tensors:
        assert {"classifier.bias", "classifier.weight"} < set(found.unused)


def test_tied_copies_must_agree_and_untied_ones_are_kept(source):
    edit_config(source, architectures=["BertForMaskedLM"])
    table, copy = tensors_of(source)["embeddings.word_embeddings.weight"], f"{MLM}decoder.weight"
    edit_tensors(source, TRANSFORM | BIAS | {copy: table})
    assert "output" not in hugging_face.read(source).params["head"]
    edit_tensors(source, {copy: table + np.float32(1)})
    with pytest.raises(InteropError, match='decoder.weight differs .*"tie_word_embeddings": false'):
        hugging_face.read(source)
    edit_config(source, tie_word_embeddings=False)
    found = hugging_face.read(source)
    np.testing.assert_array_equal(found.params["head"]["output"], table + np.float32(1))
    rewritten(found, source / "again")
    np.testing.assert_array_equal(tensors_of(source / "again")[copy], table + np.float32(1))
    edit_tensors(source, {copy: None})
    with pytest.raises(InteropError, match=r"has no tensor cls.predictions.decoder.weight"):
        hugging_face.read(source)
