"""GPT-2's directories: in and out to the bit, and what does not fit is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import sibert_jax
from sibert_jax.data import ByteBPE, Tokenizer
from sibert_jax.errors import ConfigError, InteropError
from sibert_jax.interop import foreign, gpt2
from sibert_jax.interop.__main__ import main
from sibert_jax.interop.per_layer import flatten
from sibert_jax.model import Encoder

from .conftest import (
    BERT,
    WEIGHTS,
    config_of,
    edit_config,
    edit_tensors,
    random_params,
    tensors_of,
    zeros,
)

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
VOCAB = 260
GPT = dataclasses.replace(BERT, arch="gpt", vocab_size=VOCAB, num_segments=1, norm_eps=1e-5)
LAST = "transformer.h.2.mlp.c_proj.bias"


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    gpt2.write(directory, GPT, random_params(GPT), end_id=259)
    ByteBPE.of_merges(MERGES, VOCAB).save(directory / "vocab.json")
    return directory


def with_copies(directory):
    """As older files have them: masks, a copy of the table, and no architecture."""
    mask = np.tril(np.ones((1, 1, 16, 16), np.float32))
    extra = {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": mask[0, 0, 0]}
    table = tensors_of(directory)["transformer.wte.weight"]
    edit_tensors(directory, extra | {"lm_head.weight": table})
    edit_config(directory, drop=["architectures"])


@pytest.mark.parametrize("change", [lambda directory: None, with_copies])
def test_read_is_the_inverse_of_write(source, change):
    change(source)
    found = foreign.read(source)
    fields = ("vocab_size", "max_len", "width", "depth", "num_heads", "ffn_width", "norm_eps")
    assert all(getattr(found.cfg, field) == getattr(GPT, field) for field in fields)
    assert (found.cfg.arch, found.unused, found.notes) == ("gpt", (), ())
    before = flatten(random_params(GPT), scan_layers=GPT.scan_layers)
    after = flatten(found.params, scan_layers=found.cfg.scan_layers)
    assert sorted(before) == sorted(after)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_queries_keys_and_values_stand_side_by_side(source):
    layers, D = foreign.read(source).params["encoder"]["layers"]["layer"], GPT.width
    joint = tensors_of(source)["transformer.h.1.attn.c_attn.weight"]
    for i, name in enumerate(("query", "key", "value")):
        kernel_DHK = layers["attention"][name]["kernel"][1]
        np.testing.assert_array_equal(kernel_DHK.reshape(D, D), joint[:, i * D : (i + 1) * D])


def bare(directory):
    edit_tensors(directory, rename=lambda name: name.removeprefix("transformer."))
    edit_config(directory, architectures=["GPT2Model"], n_inner=20)


@pytest.mark.parametrize(
    ("change", "architecture"),
    [
        pytest.param(with_copies, "GPT2LMHeadModel", marks=pytest.mark.slow),
        (bare, "GPT2Model"),
    ],
)
def test_what_is_imported_is_exported_to_the_bit(source, tmp_path, change, architecture):
    before = tensors_of(source)
    change(source)
    for action, here, there in (("import", "source", "w"), ("export", "w", "e")):
        assert main([action, str(tmp_path / here), str(tmp_path / there)]) == 0
    after = tensors_of(tmp_path / "e")
    prefix = "transformer." if architecture == "GPT2Model" else ""
    assert sorted(after) == sorted(name.removeprefix(prefix) for name in before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name.removeprefix(prefix)], array, err_msg=name)
    assert config_of(tmp_path / "e") == config_of(source) | {"architectures": [architecture]}
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / "e" / name).read_bytes() == (source / name).read_bytes()
    assert Tokenizer.load(tmp_path / "w/vocab.json").hash == Tokenizer.load(source).hash
    settings = json.loads((tmp_path / "w/config.json").read_text())
    assert (settings["model"]["arch"], settings["data"]["tokenizer"]) == ("gpt", "byte_bpe")


def test_what_is_loaded_predicts_by_its_token_table(source):
    model = sibert_jax.load(source)
    assert (model.kind, model.max_tokens) == ("causal_lm", GPT.max_len)
    tokens_BL = model.tokenizer.encode_batch(["the he"])[0][None]
    batch = {"tokens": tokens_BL, "segments": tokens_BL * 0, "attention_mask": tokens_BL >= 0}

    @jax.jit
    def run(params):
        x_BLD, _ = Encoder(model.config).apply({"params": params["encoder"]}, *batch.values())
        projection, _ = model.module.apply({"params": params}, batch)
        return projection.logits(), x_BLD @ params["encoder"]["embed"]["token"].T

    np.testing.assert_allclose(*run(model.params), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="byte-level BPE vocabulary without .CLS. and .SEP."):
        model.encode(["the"])


def test_a_padded_table_and_other_rates_are_noted(source, tmp_path, capsys):
    ByteBPE.of_merges(MERGES[:2], 259).save(source / "vocab.json")
    edit_config(source, attn_pdrop=0.2, architectures=["GPT2ForSequenceClassification"])
    edit_tensors(source, zeros(score__weight=(2, 12)))
    assert main(["import", str(source), str(tmp_path / "w")]) == 0
    said = capsys.readouterr().out
    for words in (
        "1 rows of the token table have no token in the vocabulary",
        "attn_pdrop is 0.2; our models have one rate, model.dropout=0.0",
        "the head of GPT2ForSequenceClassification is not supported; the rest is read as GPT2Model",
        "not used, as the model has no such parameters: score.weight",
    ):
        assert words in said
    assert Tokenizer.load(tmp_path / "w/vocab.json").vocab_size == VOCAB


def config(drop=(), **changes):
    return lambda d: edit_config(d, drop, **changes)


def tensors(new):
    return lambda d: edit_tensors(d, new)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (config(model_type="llama"), "model_type is 'llama', but only bert and gpt2 are supported"),
        (config(activation_function="gelu"), "activation_function is 'gelu', but only 'gelu_new'"),
        (config(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx is True"),
        (config(tie_word_embeddings=False), "tie_word_embeddings is False"),
        (config(["n_embd"]), "has no key 'n_embd'"),
        (config(n_head=5), "n_embd 12 is not divisible by n_head 5"),
        (
            config(n_layer=10**12),
            "no tensor transformer.h.3.ln_1.weight, which GPT-2",
        ),
        (config(n_inner=21), r"h.0.mlp.c_fc.weight is \(12, 20\), .* ask for \(12, 21\)"),
        (config(vocab_size=9), r"wte.weight is \(260, 12\), .* ask for \(9, 12\)"),
        (tensors({LAST: None}), f"has no tensor {LAST}"),
        (tensors({LAST.removeprefix("transformer."): np.zeros(12)}), f"has {LAST} twice"),
        (tensors({LAST: np.zeros(12, int)}), "c_proj.bias is int64"),
        (tensors(zeros(lm_head__weight=(260, 12))), "lm_head.weight differs from transformer.wte"),
        (lambda d: (d / WEIGHTS).rename(d / "pytorch_model.bin"), "GPT2LMHeadModel as M"),
    ],
)
def test_directory_of_gpt2_that_does_not_fit_is_named(source, spoil, words):
    spoil(source)
    with pytest.raises(InteropError, match=words):
        foreign.read(source)


@pytest.mark.parametrize(
    ("cfg", "head", "words"),
    [
        (dataclasses.replace(GPT, attention_window=4), {}, "attention_window=4 cannot be written"),
        (dataclasses.replace(GPT, positions="rotary"), {}, "positions='rotary' cannot be written"),
        (BERT, {}, "model.arch='bert' with .* cannot be written as Hugging Face's GPT-2"),
        (GPT, {"head": {"output": np.zeros((260, 12))}}, "head/output has no place in GPT2LMHead"),
    ],
)
def test_what_gpt2_has_no_place_for_is_not_written(tmp_path, cfg, head, words):
    with pytest.raises(InteropError, match=words):
        gpt2.write(tmp_path / "new", cfg, random_params(GPT) | head, end_id=0)
    assert not (tmp_path / "new").exists()


def test_halves_are_read_as_float32_of_what_was_written(source, tmp_path):
    gpt2.write(tmp_path / "half", GPT, random_params(GPT), end_id=0, dtype="bfloat16")
    assert config_of(tmp_path / "half")["torch_dtype"] == "bfloat16"
    found = foreign.read(tmp_path / "half")
    assert found.notes == ("weights of bfloat16 are kept and exported as float32",)
    leaves = zip(jax.tree.leaves(found.params), jax.tree.leaves(foreign.read(source).params))
    for after, before in leaves:
        np.testing.assert_array_equal(after, before.astype("bfloat16").astype(np.float32))
