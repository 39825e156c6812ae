"""BERT's weights pass to Hugging Face and back; what transformers loads is loaded, other things
are refused. Against transformers itself: transformers_test.py.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.errors import InteropError
from sibert_jax.interop import hugging_face
from sibert_jax.model import Encoder

from .conftest import edit_config, edit_tensors, split

# As `bert-base-uncased`'s own file names them, layer 0 and what surrounds the layers.
LAYER = "encoder.layer.0."
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LINEAR_AND_NORM = (
    "embeddings.LayerNorm",
    *(f"{LAYER}attention.self.{name}" for name in ("query", "key", "value")),
    *(f"{LAYER}attention.output.{name}" for name in ("dense", "LayerNorm")),
    f"{LAYER}intermediate.dense",
    *(f"{LAYER}output.{name}" for name in ("dense", "LayerNorm")),
)
THEIR_NAMES = {f"embeddings.{name}.weight" for name in TABLES} | {
    f"{name}.{kind}" for name in LINEAR_AND_NORM for kind in ("weight", "bias")
}
TYPES = "embeddings.token_type_embeddings.weight"


def features(cfg, params):
    tokens, valid = jnp.arange(8, dtype=jnp.int32)[None], jnp.ones((1, 8), bool)
    return jax.jit(Encoder(cfg).apply)({"params": params["encoder"]}, tokens, tokens % 2, valid)[0]


def assert_same_leaves(found, wanted):
    for ours, theirs in zip(*(jax.tree.leaves(tree) for tree in (found, wanted)), strict=True):
        np.testing.assert_array_equal(np.ravel(ours), np.ravel(theirs))


@pytest.mark.parametrize("scan_layers", [pytest.param(True, marks=pytest.mark.slow), False])
def test_parameters_go_to_their_names_and_come_back(cfg, encoder_params, tmp_path, scan_layers):
    cfg = dataclasses.replace(cfg, depth=1, scan_layers=scan_layers)
    params = encoder_params(cfg)
    hugging_face.write(tmp_path, cfg, params, head="")
    written = safetensors.load_file(tmp_path / "model.safetensors")
    assert set(written) == THEIR_NAMES
    found = hugging_face.read(tmp_path)
    assert found.cfg == dataclasses.replace(cfg, branch_scaling="none", scan_layers=True)
    assert (found.head, found.unused, found.notes) == ("", (), ())
    np.testing.assert_allclose(
        features(cfg, params), features(found.cfg, found.params), rtol=1e-5, atol=1e-6
    )
    assert_same_leaves(found.params, params)


def test_model_without_segments_has_two_zero_rows_of_them(cfg, encoder_params, tmp_path):
    cfg = dataclasses.replace(cfg, num_segments=1, depth=1)
    params = encoder_params(cfg)
    hugging_face.write(tmp_path, cfg, params, head="")
    assert json.loads((tmp_path / "config.json").read_text())["type_vocab_size"] == 2
    table = safetensors.load_file(tmp_path / "model.safetensors")[TYPES]
    np.testing.assert_array_equal(table, np.zeros((2, 12), np.float32))
    found = hugging_face.read(tmp_path)
    assert found.cfg.num_segments == 2
    np.testing.assert_allclose(
        features(cfg, params), features(found.cfg, found.params), rtol=1e-5, atol=1e-6
    )


def rename(directory, new_name):
    edit_tensors(directory, lambda tensors: {new_name(k): x for k, x in tensors.items()})


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
        lambda d: rename(d, lambda n: n.replace("Norm.weight", "Norm.gamma")),
        lambda d: rename(d, lambda n: n.replace("Norm.bias", "Norm.beta")),
        lambda d: rename(d, lambda n: f"bert.{n}"),
        split,
    ],
)
def test_same_model_written_otherwise_is_the_same(hf_directory, change):
    edit_config(hf_directory, **DEFAULTS)
    wanted = hugging_face.read(hf_directory)
    change(hf_directory)
    found = hugging_face.read(hf_directory)
    assert (found.cfg, found.head, found.unused) == (wanted.cfg, "", ())
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_other_float_types_become_float32(hf_directory, dtype):
    edit_tensors(hf_directory, lambda t: t | ({k: x.astype(dtype) for k, x in t.items()}))
    wanted = {k: x.astype(np.float32) for k, x in tensors_of(hf_directory).items()}
    edit_config(hf_directory, torch_dtype=np.dtype(dtype).name)
    found = hugging_face.read(hf_directory)
    assert found.notes == (f"weights of {np.dtype(dtype).name} are kept and exported as float32",)
    kind = hugging_face.write(
        hf_directory / "again", found.cfg, found.params, "", config=found.config
    )
    again = tensors_of(hf_directory / "again")
    assert kind == "BertModel"
    assert json.loads((hf_directory / "again/config.json").read_text())["torch_dtype"] == "float32"
    for name, array in wanted.items():
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], array)


def rewritten(found, directory):
    """Write what was read; return the class it was written as."""
    return hugging_face.write(directory, found.cfg, found.params, found.head, config=found.config)


def tensors_of(directory):
    return safetensors.load_file(directory / "model.safetensors")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_token_types_comes_and_goes(hf_directory, count):
    rows = np.random.default_rng(1).normal(size=(count, 12)).astype(np.float32)
    edit_tensors(hf_directory, lambda t: t | ({TYPES: rows}))
    edit_config(hf_directory, type_vocab_size=count)
    found = hugging_face.read(hf_directory)
    table = found.params["encoder"]["embed"]["segment"]
    np.testing.assert_array_equal(table, rows if count > 1 else np.repeat(rows, 2, axis=0))
    rewritten(found, hf_directory / "again")
    np.testing.assert_array_equal(tensors_of(hf_directory / "again")[TYPES], rows)
    assert json.loads((hf_directory / "again/config.json").read_text())["type_vocab_size"] == count


def test_tensors_without_a_place_are_listed(hf_directory):
    edit_tensors(hf_directory, lambda t: t | ({"adapter.weight": np.zeros(3, np.float32)}))
    assert hugging_face.read(hf_directory).unused == ("adapter.weight",)


def zeros(*names_and_shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in names_and_shapes}


POOLER = zeros(("pooler.dense.weight", (12, 12)), ("pooler.dense.bias", 12))
CLASSIFIER = zeros(("classifier.weight", (2, 12)), ("classifier.bias", 2))
MLM = "cls.predictions."
TRANSFORM = zeros(
    (f"{MLM}transform.dense.weight", (12, 12)),
    (f"{MLM}transform.dense.bias", 12),
    (f"{MLM}transform.LayerNorm.weight", 12),
    (f"{MLM}transform.LayerNorm.bias", 12),
)
BIAS, BIAS_COPY = zeros((f"{MLM}bias", 50)), zeros((f"{MLM}decoder.bias", 50))


@pytest.mark.parametrize(
    ("architecture", "tensors", "head", "note"),
    [
        ("BertForSequenceClassification", POOLER | CLASSIFIER, "classification", None),
        ("BertForSequenceClassification", POOLER, "", "no classifier.weight: read as BertModel"),
        (None, POOLER | CLASSIFIER, "", "names no architecture, so the classifier may be"),
        ("BertForTokenClassification", CLASSIFIER, "", "the head of BertForTokenClassification"),
        ("BertForMultipleChoice", POOLER | CLASSIFIER, "", "the head of BertForMultipleChoice has"),
        ("BertForNextSentencePrediction", POOLER, "", "the head of BertForNextSentencePrediction"),
        ("BertForMaskedLM", TRANSFORM | BIAS, "pretraining", None),
        ("BertForMaskedLM", TRANSFORM | BIAS_COPY, "pretraining", None),
        (None, TRANSFORM | BIAS | BIAS_COPY, "pretraining", None),
    ],
)
def test_class_decides_which_head_is_read(hf_directory, architecture, tensors, head, note):
    edit_config(hf_directory, architectures=[architecture] if architecture else None)
    edit_tensors(hf_directory, lambda t: t | (tensors))
    found = hugging_face.read(hf_directory)
    assert found.head == head
    assert found.config["architectures"] == [
        architecture if head and architecture else "BertForMaskedLM" if head else "BertModel"
    ]
    assert len(found.notes) == (note is not None)
    assert note is None or note in found.notes[0]
    if note and "classifier.weight" in tensors:
        assert found.unused == ("classifier.bias", "classifier.weight")


@pytest.mark.parametrize(
    ("architecture", "tensors", "message"),
    [
        (
            "BertForSequenceClassification",
            CLASSIFIER,
            "has no tensor bert.pooler.dense.weight, which BertForSequenceClassification needs",
        ),
        ("BertForMaskedLM", TRANSFORM, "has no tensor cls.predictions.bias, which BertForMaskedLM"),
        (
            "BertForSequenceClassification",
            POOLER | zeros(("classifier.weight", (3, 12)), ("classifier.bias", 3)),
            r"classifier.weight is \(3, 12\), .*\(2, 12\) \(one row per label\)",
        ),
    ],
)
def test_head_with_a_part_missing_is_refused(hf_directory, architecture, tensors, message):
    edit_config(hf_directory, architectures=[architecture])
    edit_tensors(hf_directory, lambda t: t | (tensors))
    with pytest.raises(InteropError, match=message):
        hugging_face.read(hf_directory)


def test_tied_copies_must_agree_and_untied_ones_are_kept(hf_directory):
    edit_config(hf_directory, architectures=["BertForMaskedLM"])
    table = tensors_of(hf_directory)["embeddings.word_embeddings.weight"]
    copy = {f"{MLM}decoder.weight": table}
    edit_tensors(hf_directory, lambda t: t | (TRANSFORM | BIAS | copy))
    assert "output" not in hugging_face.read(hf_directory).params["head"]
    other = {f"{MLM}decoder.weight": table + np.float32(1)}
    edit_tensors(hf_directory, lambda t: t | (other))
    with pytest.raises(InteropError, match='decoder.weight differs .*"tie_word_embeddings": false'):
        hugging_face.read(hf_directory)
    edit_config(hf_directory, tie_word_embeddings=False)
    found = hugging_face.read(hf_directory)
    np.testing.assert_array_equal(found.params["head"]["output"], table + np.float32(1))
    hugging_face.write(
        hf_directory / "again", found.cfg, found.params, found.head, config=found.config
    )
    again = tensors_of(hf_directory / "again")
    np.testing.assert_array_equal(again[f"{MLM}decoder.weight"], table + np.float32(1))
    edit_tensors(hf_directory, lambda t: t | {f"{MLM}decoder.weight": None})
    with pytest.raises(InteropError, match=r"has no tensor cls.predictions.decoder.weight"):
        hugging_face.read(hf_directory)
