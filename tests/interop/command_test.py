"""The command turns directories of weights into workdirs and back without changing a bit."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import tokenizers

from sibert_jax.checkpoint import CheckpointError, newest_verified, start_from
from sibert_jax.data import Tokenizer
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.__main__ import main
from tests.builders import write_vocabulary

from .conftest import BERT, config_of, edit_config, edit_tensors, random_params, tensors_of


@pytest.fixture
def come_in(source, tmp_path, capsys):
    """Imports the source; returns the workdir and what was said."""

    def come_in(name="workdir"):
        assert main(["import", str(source), str(tmp_path / name)]) == 0
        return tmp_path / name, capsys.readouterr().out

    return come_in


@pytest.fixture
def in_and_out(come_in, tmp_path, capsys):
    """Imports the source and exports it; returns the new directory and what was said."""

    def in_and_out():
        workdir, said = come_in()
        assert main(["export", str(workdir), str(tmp_path / "again")]) == 0
        assert "step 0" in capsys.readouterr().out
        return tmp_path / "again", said

    return in_and_out


@pytest.mark.parametrize("arch", ["bert", "sibert"])
def test_every_file_comes_out_as_it_went_in_and_spare_rows_too(source, tmp_path, in_and_out, arch):
    pieces = (source / "vocab.txt").read_text().splitlines()[:-7]
    if arch == "sibert":
        cfg = dataclasses.replace(BERT, arch="sibert", norm_eps=1e-6)
        shutil.rmtree(source)
        exported.write(source, cfg, random_params(cfg), "a test")
    (source / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    again, said = in_and_out()
    assert f"--config.checkpoint.init_from={tmp_path / 'workdir'}" in said
    assert "7 rows of the token table have no token in the vocabulary" in said
    tokenizer = Tokenizer.load(tmp_path / "workdir/vocab.txt")
    assert tokenizer.vocab_size == BERT.vocab_size
    assert tokenizer.is_special[-7:].all()
    for name in ("model.safetensors", "config.json", *(["vocab.txt"] if arch == "bert" else [])):
        assert (again / name).read_bytes() == (source / name).read_bytes(), name


@pytest.mark.parametrize("arch", ["bert", "sibert"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shorter_weights_come_back_as_float32_of_what_was_rounded(
    source, come_in, tmp_path, capsys, arch, dtype
):
    params = random_params(BERT)
    if arch == "sibert":
        shutil.rmtree(source)
        exported.write(source, dataclasses.replace(BERT, arch="sibert"), params, "a test")
        write_vocabulary(source / "vocab.txt", [f"w{i}" for i in range(45)])
    workdir, _ = come_in()
    assert main(["export", str(workdir), str(tmp_path / "short"), f"--dtype={dtype}"]) == 0
    assert capsys.readouterr().out.endswith(f", step 0, weights rounded to {dtype}\n")
    assert {str(x.dtype) for x in tensors_of(tmp_path / "short").values()} == {dtype}
    wanted = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
    if arch == "bert":
        assert config_of(tmp_path / "short")["torch_dtype"] == dtype
        found = hugging_face.read(tmp_path / "short").params
    else:
        assert f": {dtype} weights" in (tmp_path / "short/README.md").read_text()
        found = exported.read(tmp_path / "short")[1]
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_run_starts_from_what_was_imported(source, come_in):
    workdir, _ = come_in()
    params = random_params(BERT)
    fresh = jax.tree.map(lambda x: jax.numpy.zeros(x.shape), params)
    fresh["head"] = {"classifier": {"bias": jax.numpy.ones(3)}}
    description = {"vocab_hash": Tokenizer.load(source / "vocab.txt").hash}
    description |= {"config": config_of(workdir)}
    started = start_from(workdir, fresh, description)
    jax.tree.map(np.testing.assert_array_equal, started["encoder"], params["encoder"])
    np.testing.assert_array_equal(started["head"]["classifier"]["bias"], 1.0)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        start_from(workdir, fresh, description | {"vocab_hash": "0" * 64})


LABELS = {"0": "NEUTRAL", "1": "contradiction", "2": "LABEL_7"}
POOLER = {"bert.pooler.dense": (12, 12)}
MLM = {"cls.predictions.transform.dense": (12, 12), "cls.predictions.transform.LayerNorm": (12,)}
MLM |= {"cls.predictions": (50,)}  # its bias alone
NSP = {"cls.seq_relationship": (2, 12)}
NAMED = {
    "id2label": LABELS,
    "label2id": {label: int(i) for i, label in LABELS.items()},
    "problem_type": "multi_label_classification",
    "finetuning_task": "x",
}
CLASSIFICATION = "BertForSequenceClassification"
# name: (class, further keys of its config, shapes of the weights of its head)
HEADS = {
    "pretraining": ("BertForPreTraining", {}, POOLER | MLM | NSP),
    "masked_lm": ("BertForMaskedLM", {}, MLM),
    "named": (CLASSIFICATION, NAMED, POOLER | {"classifier": (3, 12)}),
    "answers": ("BertForQuestionAnswering", {}, {"qa_outputs": (2, 12)}),
    "tags": ("BertForTokenClassification", NAMED, {"classifier": (3, 12)}),
}
MORE_HEADS = {
    "pooler": ("BertModel", {}, POOLER),
    "masked_lm_and_more": ("BertForMaskedLM", {}, POOLER | MLM | NSP),
    "counted": (CLASSIFICATION, {"num_labels": 3}, POOLER | {"classifier": (3, 12)}),
    "regression": (CLASSIFICATION, {"id2label": {"0": "x"}}, POOLER | {"classifier": (1, 12)}),
}


def add_head(directory, kind, shapes):
    """Adds weights and biases; `cls.predictions` has no weight of its own."""
    rng, new = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        if name != "cls.predictions":
            new[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        new[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    if kind == "BertModel":  # whose names are without "bert."
        new = {name.removeprefix("bert."): array for name, array in new.items()}
    else:
        edit_tensors(directory, rename=lambda name: f"bert.{name}")
    edit_tensors(directory, new)
    edit_config(directory, architectures=[kind])


@pytest.mark.parametrize(
    "name", [*HEADS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_HEADS)]
)
def test_every_class_goes_out_as_it_came_in(source, in_and_out, name):
    kind, changes, shapes = (HEADS | MORE_HEADS)[name]
    add_head(source, kind, shapes)
    edit_config(source, torch_dtype="float32", **changes)
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 9}')
    again, said = in_and_out()
    assert f": {kind}, 0.0 million parameters" in said
    before, after = tensors_of(source), tensors_of(again)
    assert sorted(before) == sorted(after)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert config_of(source) == config_of(again)
    for file in ("vocab.txt", "tokenizer_config.json"):
        assert (again / file).read_bytes() == (source / file).read_bytes()


def test_another_class_is_an_encoder_and_says_so(source, in_and_out):
    add_head(source, "BertForMultipleChoice", HEADS["named"][2])
    again, said = in_and_out()
    assert "the head of BertForMultipleChoice is not supported" in said
    assert "not used, as the model has no such parameters: classifier.bias" in said
    assert config_of(again)["architectures"] == ["BertModel"]
    assert "id2label" not in config_of(again)


def test_cased_vocabulary_stays_cased(source, come_in):
    lines = (source / "vocab.txt").read_text().replace("w0\n", "Paris\n").replace("w1\n", "été\n")
    (source / "vocab.txt").write_text(lines)
    lower, said = come_in("lower")
    assert "1 tokens have capitals and never occur" in said
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased, said = come_in("cased")
    assert "cased: text keeps its capitals and accents" in said
    hashes = []
    for directory, wanted in ((lower, [1, 1]), (cased, [5, 6])):
        tokenizer = Tokenizer.load(directory / "vocab.txt")
        assert tokenizer.encode_batch(["Paris été"])[0].tolist() == wanted
        hashes.append(tokenizer.hash)
        assert newest_verified(directory).manifest.run["vocab_hash"] == tokenizer.hash
    assert hashes[0] != hashes[1]


def test_pieces_may_be_in_tokenizer_json(source, tmp_path, in_and_out):
    pieces = (source / "vocab.txt").read_text().split()
    ids = {piece: i for i, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    library.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    library.save(str(source / "tokenizer.json"))
    (source / "vocab.txt").unlink()
    again, _ = in_and_out()
    for path in (tmp_path / "workdir/vocab.txt", again):
        found = Tokenizer.load(path)
        assert found.pieces == tuple(pieces)
        assert not found.cleaning.do_lower_case
