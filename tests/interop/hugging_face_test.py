"""BERT's weights pass to Hugging Face and back; what transformers loads is loaded, other things
are refused. Against transformers itself: transformers_test.py.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.errors import InteropError
from sibert_jax.interop import hugging_face
from sibert_jax.model import Encoder

# As `bert-base-uncased`'s own file names them, layer 0 and what surrounds the layers.
THEIR_NAMES = {
    f"bert.{name}.{kind}"
    for names, kinds in (
        (
            (
                "embeddings.word_embeddings",
                "embeddings.position_embeddings",
                "embeddings.token_type_embeddings",
            ),
            ("weight",),
        ),
        (
            (
                "embeddings.LayerNorm",
                "encoder.layer.0.attention.self.query",
                "encoder.layer.0.attention.self.key",
                "encoder.layer.0.attention.self.value",
                "encoder.layer.0.attention.output.dense",
                "encoder.layer.0.attention.output.LayerNorm",
                "encoder.layer.0.intermediate.dense",
                "encoder.layer.0.output.dense",
                "encoder.layer.0.output.LayerNorm",
            ),
            ("weight", "bias"),
        ),
    )
    for name in names
    for kind in kinds
}
TYPES = "embeddings.token_type_embeddings.weight"


def features(cfg, params):
    tokens, valid = jnp.arange(8, dtype=jnp.int32)[None], jnp.ones((1, 8), bool)
    return jax.jit(Encoder(cfg).apply)({"params": params["encoder"]}, tokens, tokens % 2, valid)[0]


def assert_same_leaves(found, wanted):
    for ours, theirs in zip(*(jax.tree.leaves(tree) for tree in (found, wanted)), strict=True):
        np.testing.assert_array_equal(np.ravel(ours), np.ravel(theirs))


@pytest.mark.parametrize("scan_layers", [True, False])
def test_every_parameter_goes_to_its_name_and_comes_back_bit_for_bit(
    cfg, encoder_params, tmp_path, scan_layers
):
    cfg = dataclasses.replace(cfg, depth=1, scan_layers=scan_layers)
    params = encoder_params(cfg)
    hugging_face.write(tmp_path, cfg, params, head="")
    written = safetensors.load_file(tmp_path / "model.safetensors")
    assert {f"bert.{name}" for name in written} == THEIR_NAMES
    found = hugging_face.read(tmp_path)
    assert found.cfg == dataclasses.replace(cfg, branch_scaling="none", scan_layers=True)
    assert (found.head, found.unused, found.notes) == ("", (), ())
    np.testing.assert_allclose(
        features(cfg, params), features(found.cfg, found.params), rtol=1e-5, atol=1e-6
    )
    assert_same_leaves(found.params, params)


def test_a_model_without_segments_has_two_zero_rows_of_them(cfg, encoder_params, tmp_path):
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


@pytest.fixture(scope="module")
def written(tmp_path_factory, cfg, encoder_params):
    directory = tmp_path_factory.mktemp("written")
    hugging_face.write(directory, cfg, encoder_params(cfg), head="")
    return directory


@pytest.fixture
def exported(written, tmp_path):
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def edit_tensors(directory, edit):
    path = directory / "model.safetensors"
    tensors = safetensors.load_file(path)
    edit(tensors)
    safetensors.save_file(tensors, path)


def edit_config(directory, drop=(), **changes):
    path = directory / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: x for key, x in values.items() if key not in drop}))


def rename(directory, new_name):
    def edit(tensors):
        for name in list(tensors):
            tensors[new_name(name)] = tensors.pop(name)

    edit_tensors(directory, edit)


def split(directory):
    """Two files and an index instead of one file."""
    tensors, places = safetensors.load_file(directory / "model.safetensors"), {}
    for i in range(2):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        safetensors.save_file(part, directory / name)
        places |= dict.fromkeys(part, name)
    (directory / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


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
def test_the_same_model_written_otherwise_is_the_same(exported, change):
    edit_config(exported, **DEFAULTS)
    wanted = hugging_face.read(exported)
    change(exported)
    found = hugging_face.read(exported)
    assert (found.cfg, found.head, found.unused) == (wanted.cfg, "", ())
    jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_other_float_types_become_float32_and_are_told(exported, dtype):
    edit_tensors(exported, lambda t: t.update({k: x.astype(dtype) for k, x in t.items()}))
    wanted = {k: x.astype(np.float32) for k, x in tensors_of(exported).items()}
    edit_config(exported, torch_dtype=np.dtype(dtype).name)
    found = hugging_face.read(exported)
    assert found.notes == (f"weights of {np.dtype(dtype).name} are kept and exported as float32",)
    kind = hugging_face.write(exported / "again", found.cfg, found.params, "", config=found.config)
    again = tensors_of(exported / "again")
    assert kind == "BertModel"
    assert json.loads((exported / "again/config.json").read_text())["torch_dtype"] == "float32"
    for name, array in wanted.items():
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], array)


def tensors_of(directory):
    return safetensors.load_file(directory / "model.safetensors")


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_any_number_of_token_types_comes_and_goes(exported, count):
    rows = np.random.default_rng(1).normal(size=(count, 12)).astype(np.float32)
    edit_tensors(exported, lambda t: t.update({TYPES: rows}))
    edit_config(exported, type_vocab_size=count)
    found = hugging_face.read(exported)
    table = found.params["encoder"]["embed"]["segment"]
    np.testing.assert_array_equal(table, rows if count > 1 else np.repeat(rows, 2, axis=0))
    hugging_face.write(exported / "again", found.cfg, found.params, "", config=found.config)
    np.testing.assert_array_equal(tensors_of(exported / "again")[TYPES], rows)
    assert json.loads((exported / "again/config.json").read_text())["type_vocab_size"] == count


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda d: (d / "config.json").write_text("[1]"), "holds a list, wanted an object"),
        (lambda d: (d / "config.json").write_text("5"), "holds a int, wanted an object"),
        (lambda d: (d / "config.json").write_bytes(b'{"a": "\xff"}'), "cannot be read as JSON"),
        (lambda d: edit_config(d, model_type="roberta"), "model_type is 'roberta'"),
        (lambda d: edit_config(d, hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda d: edit_config(d, hidden_act=["gelu"]), r"hidden_act is \['gelu'\]"),
        (
            lambda d: edit_config(d, position_embedding_type="relative_key"),
            "position_embedding_type is 'relative_key'",
        ),
        (lambda d: edit_config(d, is_decoder=True), "is_decoder is True"),
        (
            lambda d: edit_config(d, drop=["model_type"], architectures=["RobertaModel"]),
            "names RobertaModel, and only BERT can be read",
        ),
        (lambda d: edit_config(d, architectures="BertModel"), "wanted a list of class names"),
        (lambda d: (d / "config.json").write_text("{}"), "has no key 'vocab_size'"),
        (lambda d: edit_config(d, num_hidden_layers=None), "has no key 'num_hidden_layers'"),
        (lambda d: edit_config(d, hidden_size="12"), "hidden_size is '12', wanted a whole number"),
        (lambda d: edit_config(d, hidden_size=12.0), "hidden_size is 12.0, wanted a whole number"),
        (lambda d: edit_config(d, hidden_size=[12]), r"hidden_size is \[12\], wanted a whole"),
        (lambda d: edit_config(d, hidden_size=True), "hidden_size is True, wanted a whole number"),
        (lambda d: edit_config(d, num_attention_heads=-3), "num_attention_heads is -3, wanted"),
        (lambda d: edit_config(d, type_vocab_size=0), "type_vocab_size is 0, wanted"),
        (lambda d: edit_config(d, layer_norm_eps="1e-12"), "layer_norm_eps is '1e-12', wanted"),
        (lambda d: edit_config(d, layer_norm_eps=float("nan")), "layer_norm_eps is nan, wanted"),
        (lambda d: edit_config(d, hidden_dropout_prob=1.5), "hidden_dropout_prob is 1.5, wanted"),
        (lambda d: edit_config(d, attention_probs_dropout_prob="0"), "probs_dropout_prob is '0'"),
        (lambda d: edit_config(d, tie_word_embeddings=1), "tie_word_embeddings is 1, wanted true"),
        (lambda d: edit_config(d, id2label=["a"]), r"id2label is \['a'\], wanted a name for each"),
        (lambda d: edit_config(d, id2label={"0": "a", "2": "b"}), "wanted a name for each"),
        (
            lambda d: edit_config(d, num_attention_heads=5),
            "hidden_size 12 does not divide by num_attention_heads 5",
        ),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
            "has pytorch_model.bin and no model.safetensors; convert it .*BertModel as M",
        ),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:-9]
            ),
            "truncated or no safetensors file",
        ),
        (
            lambda d: (d / "model.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
            ),
            "is a pointer of Git LFS",
        ),
        (
            lambda d: (split(d), (d / "model-00002-of-00002.safetensors").unlink()),
            "00002-of-00002.safetensors is missing, of the 2 files",
        ),
        (
            lambda d: (
                (d / "model.safetensors").rename(d / "model.safetensors.index.json")
                and (d / "model.safetensors.index.json").write_text('{"weight_map": 1}')
            ),
            "has no weight_map",
        ),
        (
            lambda d: edit_tensors(d, lambda t: t.pop("encoder.layer.2.output.dense.bias")),
            r"has no tensor bert.encoder.layer.2.output.dense.bias.*num_hidden_layers=3",
        ),
        (lambda d: edit_config(d, num_hidden_layers=10**12), "encoder.layer.3.* which BERT of"),
        (
            lambda d: edit_config(d, vocab_size=51),
            r"word_embeddings.weight is \(50, 12\).*\(51, 12\)",
        ),
        (
            lambda d: edit_config(d, intermediate_size=21),
            r"layer.0.intermediate.dense.weight is \(20, 12\).*\(21, 12\)",
        ),
        (
            lambda d: edit_tensors(
                d, lambda t: t.update({"embeddings.LayerNorm.bias": np.zeros(12, np.int32)})
            ),
            "embeddings.LayerNorm.bias is int32",
        ),
        (
            lambda d: edit_tensors(
                d, lambda t: t.update({"embeddings.LayerNorm.gamma": np.zeros(12, np.float32)})
            ),
            "LayerNorm.weight twice",
        ),
    ],
)
def test_what_does_not_fit_is_named(exported, spoil, message):
    spoil(exported)
    with pytest.raises(InteropError, match=message):
        hugging_face.read(exported)


def test_what_has_no_place_is_told(exported):
    edit_tensors(exported, lambda t: t.update({"adapter.weight": np.zeros(3, np.float32)}))
    assert hugging_face.read(exported).unused == ("adapter.weight",)


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
def test_the_class_decides_which_head_is_read(exported, architecture, tensors, head, note):
    edit_config(exported, architectures=[architecture] if architecture else None)
    edit_tensors(exported, lambda t: t.update(tensors))
    found = hugging_face.read(exported)
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
def test_a_head_with_a_part_missing_is_refused(exported, architecture, tensors, message):
    edit_config(exported, architectures=[architecture])
    edit_tensors(exported, lambda t: t.update(tensors))
    with pytest.raises(InteropError, match=message):
        hugging_face.read(exported)


def test_tied_copies_must_agree_and_untied_ones_are_kept(exported):
    edit_config(exported, architectures=["BertForMaskedLM"])
    table = tensors_of(exported)["embeddings.word_embeddings.weight"]
    copy = {f"{MLM}decoder.weight": table}
    edit_tensors(exported, lambda t: t.update(TRANSFORM | BIAS | copy))
    assert "output" not in hugging_face.read(exported).params["head"]
    other = {f"{MLM}decoder.weight": table + np.float32(1)}
    edit_tensors(exported, lambda t: t.update(other))
    with pytest.raises(InteropError, match='decoder.weight differs .*"tie_word_embeddings": false'):
        hugging_face.read(exported)
    edit_config(exported, tie_word_embeddings=False)
    found = hugging_face.read(exported)
    np.testing.assert_array_equal(found.params["head"]["output"], table + np.float32(1))
    hugging_face.write(exported / "again", found.cfg, found.params, found.head, config=found.config)
    again = tensors_of(exported / "again")
    np.testing.assert_array_equal(again[f"{MLM}decoder.weight"], table + np.float32(1))
    edit_tensors(exported, lambda t: t.pop(f"{MLM}decoder.weight"))
    with pytest.raises(InteropError, match=r"has no tensor cls.predictions.decoder.weight"):
        hugging_face.read(exported)


def test_nothing_is_overwritten_and_nothing_left_out(cfg, encoder_params, exported, tmp_path):
    with pytest.raises(InteropError, match="not empty"):
        hugging_face.write(exported, cfg, encoder_params(cfg), head="")
    params = encoder_params(cfg) | {"head": {"output": np.zeros((50, 12), np.float32)}}
    with pytest.raises(InteropError, match="no head/transform/kernel, which BertForMaskedLM needs"):
        hugging_face.write(tmp_path / "new", cfg, params, head="pretraining")
    with pytest.raises(InteropError, match="head/output has no place in BertModel"):
        hugging_face.write(tmp_path / "new", cfg, params, head="")
    sibert = dataclasses.replace(cfg, arch="sibert")
    with pytest.raises(InteropError, match="'sibert' cannot be written as Hugging Face's BERT"):
        hugging_face.write(tmp_path / "new", sibert, params, head="")
    assert not (tmp_path / "new").exists()
