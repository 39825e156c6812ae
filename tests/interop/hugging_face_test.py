"""BERT's weights pass to Hugging Face and back; PyTorch computes the same function from them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.interop import hugging_face
from sibert_jax.interop.errors import InteropError
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
    assert (found.head, found.unused) == ("", ())
    features = []
    for sizes, tree in ((cfg, params), (found.cfg, found.params)):
        tokens, valid = jnp.arange(8, dtype=jnp.int32)[None], jnp.ones((1, 8), bool)
        apply = jax.jit(Encoder(sizes).apply)
        features.append(apply({"params": tree["encoder"]}, tokens, tokens % 2, valid)[0])
    np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-6)
    leaves = [jax.tree.leaves(tree) for tree in (params, found.params)]
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.ravel(ours), np.ravel(theirs))


@pytest.fixture
def exported(cfg, encoder_params, tmp_path):
    hugging_face.write(tmp_path, cfg, encoder_params(cfg), head="")
    return tmp_path


def edit_tensors(directory, edit):
    path = directory / "model.safetensors"
    tensors = safetensors.load_file(path)
    edit(tensors)
    safetensors.save_file(tensors, path)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda d: edit_config(d, model_type="roberta"), "model_type is 'roberta'"),
        (lambda d: edit_config(d, hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda d: (d / "config.json").write_text("{}"), "has no key 'vocab_size'"),
        (lambda d: edit_config(d, num_attention_heads=5), "does not divide by model.num_heads=5"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:-9]
            ),
            "truncated or no safetensors file",
        ),
        (
            lambda d: edit_tensors(d, lambda t: t.pop("encoder.layer.2.output.dense.bias")),
            r"has no tensor bert.encoder.layer.2.output.dense.bias.*model.depth=3",
        ),
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
    ],
)
def test_what_does_not_fit_is_named(exported, spoil, message):
    spoil(exported)
    with pytest.raises(InteropError, match=message):
        hugging_face.read(exported)


def test_what_has_no_place_is_told(exported):
    edit_tensors(exported, lambda t: t.update({"adapter.weight": np.zeros(3, np.float32)}))
    assert hugging_face.read(exported).unused == ("adapter.weight",)


def test_tied_copies_must_agree(exported):
    same = {"cls.predictions.bias": np.zeros(50, np.float32)}

    def add(tensors, offset):
        table = tensors["embeddings.word_embeddings.weight"]
        tensors |= same | {"cls.predictions.decoder.weight": table + np.float32(offset)}
        safetensors.save_file(tensors, exported / "model.safetensors")

    edit_tensors(exported, lambda t: add(t, 0.0))
    assert hugging_face.read(exported).head == "pretraining"
    edit_tensors(exported, lambda t: add(t, 1.0))
    with pytest.raises(InteropError, match="decoder.weight differs from"):
        hugging_face.read(exported)


def test_nothing_is_overwritten_and_nothing_left_out(cfg, encoder_params, exported, tmp_path):
    with pytest.raises(InteropError, match="not empty"):
        hugging_face.write(exported, cfg, encoder_params(cfg), head="")
    params = encoder_params(cfg) | {"head": {"output": np.zeros((50, 12), np.float32)}}
    with pytest.raises(InteropError, match="head/output has no place in BertForPreTraining"):
        hugging_face.write(tmp_path / "new", cfg, params, head="pretraining")
    sibert = dataclasses.replace(cfg, arch="sibert")
    with pytest.raises(InteropError, match="'sibert' cannot be written as Hugging Face's BERT"):
        hugging_face.write(tmp_path / "new", sibert, params, head="")
    assert not (tmp_path / "new").exists()
