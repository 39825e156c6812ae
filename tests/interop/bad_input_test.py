"""Damaged directories are refused in one sentence that names the file, key or tensor."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from sibert_jax.errors import InteropError
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.__main__ import main

from .conftest import (
    BERT,
    CLASSIFIER,
    POOLER,
    TRANSFORM,
    WEIGHTS,
    edit_config,
    edit_tensors,
    random_params,
    split,
    zeros,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LAST_BIAS = "encoder.layer.2.output.dense.bias"


# Each of these makes a change of a directory.
def written(name, content):
    content = content if isinstance(content, bytes) else content.encode()
    return lambda d: (d / name).write_bytes(content)


def without(name):
    return lambda d: (d / name).unlink()


def config(drop=(), **changes):
    return lambda d: edit_config(d, drop, **changes)


def tensors(new, architecture="BertModel"):
    return lambda d: (edit_tensors(d, new), edit_config(d, architectures=[architecture]))


def replaced(old, new, name="config.json"):
    return lambda d: (d / name).write_text((d / name).read_text().replace(old, new))


def split_without_a_part(d):
    split(d)
    (d / "model-00002-of-00002.safetensors").unlink()


def wrong_index(d):
    (d / WEIGHTS).unlink()
    (d / "model.safetensors.index.json").write_text('{"weight_map": 1}')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("config.json"), "config.json is missing"),
        (written("config.json", "{"), "cannot be read as JSON"),
        (written("config.json", "[1]"), "holds a list, expected a JSON object"),
        (written("config.json", "{}"), "has no key 'vocab_size'"),
        (config(model_type="roberta"), "model_type is 'roberta'"),
        (config(hidden_act="relu"), "hidden_act is 'relu'"),
        (config(position_embedding_type="relative_key"), "embedding_type is 'relative_key'"),
        (config(is_decoder=True), "is_decoder is True"),
        (config(["model_type"], architectures=["RobertaModel"]), "RobertaModel, but only BERT"),
        (config(architectures="BertModel"), "expected a list of class names"),
        (config(num_hidden_layers=None), "has no key 'num_hidden_layers'"),
        (config(hidden_size="12"), "hidden_size is '12', expected a whole number"),
        (config(hidden_size=True), "hidden_size is True, expected a whole number"),
        (config(num_attention_heads=-3), "num_attention_heads is -3, expected"),
        (config(num_attention_heads=5), "hidden_size 12 is not divisible by num_attention_heads 5"),
        (config(type_vocab_size=0), "type_vocab_size is 0, expected"),
        (config(layer_norm_eps="1e-12"), "layer_norm_eps is '1e-12', expected"),
        (config(layer_norm_eps=float("nan")), "layer_norm_eps is nan, expected"),
        (config(hidden_dropout_prob=1.5), "hidden_dropout_prob is 1.5, expected"),
        (config(attention_probs_dropout_prob="0"), "probs_dropout_prob is '0'"),
        (config(tie_word_embeddings=1), "tie_word_embeddings is 1, expected true"),
        (config(id2label=["a"]), r"id2label is \['a'\], expected a name for each"),
        (config(id2label={"0": "a", "2": "b"}), "expected a name for each"),
        (without(WEIGHTS), "model.safetensors is missing"),
        (
            lambda d: (d / WEIGHTS).rename(d / "pytorch_model.bin"),
            "has pytorch_model.bin and no model.safetensors; convert it .*BertModel as M",
        ),
        (
            lambda d: written(WEIGHTS, (d / WEIGHTS).read_bytes()[:-9])(d),
            "truncated or not a safet",
        ),
        (written(WEIGHTS, POINTER), "is a pointer of Git LFS"),
        (split_without_a_part, "00002-of-00002.safetensors is missing, of the 2 files"),
        (wrong_index, "has no weight_map"),
        (tensors({LAST_BIAS: None}), f"has no tensor bert.{LAST_BIAS}.*num_hidden_layers=3"),
        (config(num_hidden_layers=10**12), "encoder.layer.3.* which BERT of"),
        (config(vocab_size=51), r"word_embeddings.weight is \(50, 12\).*\(51, 12\)"),
        (config(intermediate_size=21), r"intermediate.dense.weight is \(20, 12\).*\(21, 12\)"),
        (tensors({"embeddings.LayerNorm.bias": np.zeros(12, int)}), "LayerNorm.bias is int64"),
        (tensors(zeros(embeddings__LayerNorm__gamma=12)), "LayerNorm.weight twice"),
        (
            tensors(CLASSIFIER, "BertForSequenceClassification"),
            "has no tensor bert.pooler.dense.weight, which BertForSequenceClassification needs",
        ),
        (tensors(TRANSFORM, "BertForMaskedLM"), "has no tensor cls.predictions.bias, which BertF"),
        (
            tensors(
                POOLER | zeros(classifier__weight=(3, 12), classifier__bias=3),
                "BertForSequenceClassification",
            ),
            r"classifier.weight is \(3, 12\), .*\(2, 12\) \(one row per label\)",
        ),
    ],
)
def test_directory_of_hugging_face_that_does_not_fit_is_named(source, spoil, words):
    spoil(source)
    with pytest.raises(InteropError, match=words):
        hugging_face.read(source)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("config.json"), "config.json is missing"),
        (written("config.json", "{"), "config.json cannot be read"),
        (written("config.json", "[]"), "holds a list, expected a JSON object"),
        (written("config.json", "{}"), "was not written by sibert_jax"),
        (written("config.json", '{"format": "sibert_jax"}'), "lacks the key"),
        (replaced('"width": 12', '"width": "12"'), "width is '12', wanted int"),
        (replaced('"remat": false', '"remat": 0'), "remat is 0, wanted bool"),
        (written(WEIGHTS, b"no"), "not a safetensors file"),
    ],
)
def test_damaged_export_is_named(tmp_path, spoil, words):
    exported.write(tmp_path / "out", BERT, random_params(BERT), "a test")
    spoil(tmp_path / "out")
    with pytest.raises(InteropError, match=words):
        exported.read(tmp_path / "out")


def short(write, *arguments):
    write(*arguments, dtype="float16")


def test_nothing_is_overwritten_and_nothing_left_out(source, tmp_path):
    params, new = random_params(BERT), tmp_path / "new"
    large = {"encoder": jax.tree.map(lambda x: x * 1e5, params["encoder"])}
    with_output = params | {"head": {"output": np.zeros((50, 12), np.float32)}}
    sibert = dataclasses.replace(BERT, arch="sibert")
    rotary = dataclasses.replace(BERT, positions="rotary")
    for write, arguments, words in (
        (hugging_face.write, (source, BERT, params, ""), "not empty"),
        (exported.write, (source, BERT, params, "a test"), "not empty"),
        (
            short,
            (hugging_face.write, new, BERT, large, ""),
            r"weight holds .* float16 ends at 65504",
        ),
        (
            short,
            (exported.write, new, BERT, large, "a test"),
            "embed.* holds .*--dtype=bfl",
        ),
        (hugging_face.write, (new, BERT, with_output, "pretraining"), "no head/transform/kernel, "),
        (hugging_face.write, (new, BERT, with_output, ""), "head/output has no place in BertModel"),
        (hugging_face.write, (new, sibert, params, ""), "'sibert' cannot be written as Hugging"),
        (hugging_face.write, (new, rotary, params, ""), "'rotary' cannot be written as Hugging"),
    ):
        with pytest.raises(InteropError, match=words):
            write(*arguments)
    assert not new.exists()


def unchanged(directory):
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (without("vocab.txt"), "import source new", "vocab.txt is missing"),
        (written("vocab.txt", "[PAD]\n"), "import source new", "lacks the special tokens"),
        (
            replaced("w44\n", "w44\nmore\n", "vocab.txt"),
            "import source new",
            "has 51 pieces and the token table 50",
        ),
        (written("config.json", "nonsense"), "import source new", "config.json cannot be read"),
        (
            written("tokenizer_config.json", '{"do_lower_case": "false"}'),
            "import source new",
            "do_lower_case is 'false', wanted bool",
        ),
        (unchanged, "import bert-base-uncased new", "does not exist; name a directory"),
        (unchanged, "import source/vocab.txt new", "vocab.txt is a file; name a directory"),
        (unchanged, "import source full", "full exists and is not empty"),
        (unchanged, "import source full/file", "file exists and is not empty"),
        (unchanged, "export nowhere new", "name the workdir of a run"),
    ],
)
def test_the_command_refuses(source, tmp_path, capsys, monkeypatch, spoil, arguments, words):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("full").mkdir()
    pathlib.Path("full/file").write_text("mine")
    spoil(source)
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert not pathlib.Path("new").exists()
    assert pathlib.Path("full/file").read_text() == "mine"
