"""Damaged directories are refused in one sentence that names the file, key or tensor."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from sibert_jax.errors import InteropError
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.__main__ import main

from .conftest import edit_config, edit_tensors, split

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def written(name, content):
    """Return a change that replaces a file."""
    content = content if isinstance(content, bytes) else content.encode()
    return lambda d: (d / name).write_bytes(content)


def without(name):
    return lambda d: (d / name).unlink()


def config(drop=(), **changes):
    return lambda d: edit_config(d, drop, **changes)


def tensors(**changes):
    """Return a change that adds tensors, or drops them where the value is None."""

    def edit(d):
        new = {name.replace("__", "."): array for name, array in changes.items()}
        edit_tensors(d, lambda t: t | new)

    return edit


def cut_short(d):
    (d / WEIGHTS).write_bytes((d / WEIGHTS).read_bytes()[:-9])


def split_without_a_part(d):
    split(d)
    (d / "model-00002-of-00002.safetensors").unlink()


def wrong_index(d):
    (d / WEIGHTS).unlink()
    (d / INDEX).write_text('{"weight_map": 1}')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("config.json"), "config.json is missing"),
        (written("config.json", "{"), "cannot be read as JSON"),
        (written("config.json", "[1]"), "holds a list, wanted an object"),
        (written("config.json", b'{"a": "\xff"}'), "cannot be read as JSON"),
        (written("config.json", "{}"), "has no key 'vocab_size'"),
        (config(model_type="roberta"), "model_type is 'roberta'"),
        (config(hidden_act="relu"), "hidden_act is 'relu'"),
        (config(position_embedding_type="relative_key"), "embedding_type is 'relative_key'"),
        (config(is_decoder=True), "is_decoder is True"),
        (
            config(["model_type"], architectures=["RobertaModel"]),
            "names RobertaModel, and only BERT can be read",
        ),
        (config(architectures="BertModel"), "wanted a list of class names"),
        (config(num_hidden_layers=None), "has no key 'num_hidden_layers'"),
        (config(hidden_size="12"), "hidden_size is '12', wanted a whole number"),
        (config(hidden_size=True), "hidden_size is True, wanted a whole number"),
        (config(num_attention_heads=-3), "num_attention_heads is -3, wanted"),
        (config(num_attention_heads=5), "hidden_size 12 does not divide by num_attention_heads 5"),
        (config(type_vocab_size=0), "type_vocab_size is 0, wanted"),
        (config(layer_norm_eps="1e-12"), "layer_norm_eps is '1e-12', wanted"),
        (config(layer_norm_eps=float("nan")), "layer_norm_eps is nan, wanted"),
        (config(hidden_dropout_prob=1.5), "hidden_dropout_prob is 1.5, wanted"),
        (config(attention_probs_dropout_prob="0"), "probs_dropout_prob is '0'"),
        (config(tie_word_embeddings=1), "tie_word_embeddings is 1, wanted true"),
        (config(id2label=["a"]), r"id2label is \['a'\], wanted a name for each"),
        (config(id2label={"0": "a", "2": "b"}), "wanted a name for each"),
        (without(WEIGHTS), "model.safetensors is missing"),
        (
            lambda d: (d / WEIGHTS).rename(d / "pytorch_model.bin"),
            "has pytorch_model.bin and no model.safetensors; convert it .*BertModel as M",
        ),
        (cut_short, "truncated or no safetensors file"),
        (written(WEIGHTS, POINTER), "is a pointer of Git LFS"),
        (split_without_a_part, "00002-of-00002.safetensors is missing, of the 2 files"),
        (wrong_index, "has no weight_map"),
        (
            tensors(encoder__layer__2__output__dense__bias=None),
            r"has no tensor bert.encoder.layer.2.output.dense.bias.*num_hidden_layers=3",
        ),
        (config(num_hidden_layers=10**12), "encoder.layer.3.* which BERT of"),
        (config(vocab_size=51), r"word_embeddings.weight is \(50, 12\).*\(51, 12\)"),
        (config(intermediate_size=21), r"intermediate.dense.weight is \(20, 12\).*\(21, 12\)"),
        (tensors(embeddings__LayerNorm__bias=np.zeros(12, np.int32)), "LayerNorm.bias is int32"),
        (tensors(embeddings__LayerNorm__gamma=np.zeros(12, np.float32)), "LayerNorm.weight twice"),
    ],
)
def test_directory_of_hugging_face_that_does_not_fit_is_named(hf_directory, spoil, words):
    spoil(hf_directory)
    with pytest.raises(InteropError, match=words):
        hugging_face.read(hf_directory)


def replaced(old, new):
    def edit(d):
        path = d / "config.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("config.json"), "config.json is missing"),
        (written("config.json", "{"), "config.json cannot be read"),
        (written("config.json", "[]"), "holds a list, wanted an object"),
        (written("config.json", "{}"), "was not written here"),
        (written("config.json", '{"format": "sibert_jax"}'), "lacks the key"),
        (replaced('"width": 12', '"width": "12"'), "width is '12', wanted int"),
        (replaced('"remat": false', '"remat": 0'), "remat is 0, wanted bool"),
        (written(WEIGHTS, b"no"), "no safetensors file"),
    ],
)
def test_damaged_export_is_named(cfg, encoder_params, tmp_path, spoil, words):
    exported.write(tmp_path / "out", cfg, encoder_params(cfg), "a test")
    spoil(tmp_path / "out")
    with pytest.raises(InteropError, match=words):
        exported.read(tmp_path / "out")


def test_nothing_is_overwritten_and_nothing_left_out(cfg, encoder_params, hf_directory, tmp_path):
    params, new = encoder_params(cfg), tmp_path / "new"
    with_output = params | {"head": {"output": np.zeros((50, 12), np.float32)}}
    sibert = dataclasses.replace(cfg, arch="sibert")
    for write, arguments, words in (
        (hugging_face.write, (hf_directory, cfg, params, ""), "not empty"),
        (exported.write, (hf_directory, cfg, params, "a test"), "not empty"),
        (
            hugging_face.write,
            (new, cfg, with_output, "pretraining"),
            "no head/transform/kernel, which BertForMaskedLM needs",
        ),
        (hugging_face.write, (new, cfg, with_output, ""), "head/output has no place in BertModel"),
        (hugging_face.write, (new, sibert, params, ""), "'sibert' cannot be written as Hugging"),
    ):
        with pytest.raises(InteropError, match=words):
            write(*arguments)
    assert not new.exists()


@pytest.fixture
def source(hf_directory, vocabulary, tmp_path):
    shutil.copyfile(vocabulary, hf_directory / "vocab.txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    return hf_directory


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("vocab.txt"), "vocab.txt is missing"),
        (written("vocab.txt", "[PAD]\n"), "lacks the special tokens"),
        (
            lambda d: (d / "vocab.txt").write_text((d / "vocab.txt").read_text() + "more\n"),
            "has 51 pieces and the token table 50",
        ),
        (written("config.json", "nonsense"), "config.json cannot be read"),
        (
            written("tokenizer_config.json", '{"do_lower_case": "false"}'),
            "do_lower_case is 'false', wanted bool",
        ),
    ],
)
def test_command_refuses_a_damaged_source(source, tmp_path, capsys, spoil, words):
    spoil(source)
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "bert-base-uncased", "new"), "does not exist; name a directory"),
        (("import", "source/vocab.txt", "new"), "vocab.txt is a file; name a directory"),
        (("import", "source", "full"), "full is there and not empty"),
        (("import", "source", "full/file"), "file is there and not empty"),
        (("export", "nowhere", "new"), "name the workdir of a run"),
    ],
)
def test_command_names_the_wrong_path(source, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    action, *paths = arguments
    paths = [str(tmp_path / path.replace("source", source.name)) for path in paths]
    assert main([action, *paths]) == 2
    assert words in capsys.readouterr().err
    assert not pathlib.Path("new").exists()
    assert (tmp_path / "full/file").read_text() == "mine"
