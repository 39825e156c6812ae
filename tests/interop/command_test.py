"""The command turns directories of weights into workdirs and back without changing a bit."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tokenizers
from safetensors import numpy as safetensors

from sibert_jax.checkpoint import (
    CheckpointError,
    newest_verified,
    start_from,
)
from sibert_jax.data import Tokenizer
from sibert_jax.interop import exported
from sibert_jax.interop.__main__ import main


@pytest.fixture
def source(hf_directory, vocabulary):
    """BERT as Hugging Face keeps it, with a vocabulary."""
    shutil.copyfile(vocabulary, hf_directory / "vocab.txt")
    return hf_directory


@pytest.mark.parametrize("arch", ["bert", "sibert"])
def test_in_and_out_again_every_file_is_the_same(
    cfg, encoder_params, source, tmp_path, capsys, arch
):
    if arch == "sibert":
        cfg = dataclasses.replace(cfg, arch="sibert", norm_eps=1e-6)
        shutil.copyfile(source / "vocab.txt", tmp_path / "kept.txt")
        shutil.rmtree(source)
        exported.write(source, cfg, encoder_params(cfg), "a test")
        shutil.copyfile(tmp_path / "kept.txt", source / "vocab.txt")
    workdir, again = tmp_path / "workdir", tmp_path / "again"
    assert main(["import", str(source), str(workdir)]) == 0
    assert f"--config.checkpoint.init_from={workdir}" in capsys.readouterr().out
    assert main(["export", str(workdir), str(again)]) == 0
    assert "step 0" in capsys.readouterr().out
    for name in ("model.safetensors", "vocab.txt", "config.json"):
        assert (again / name).read_bytes() == (source / name).read_bytes(), name


def test_run_starts_from_what_was_imported(cfg, encoder_params, source, tmp_path, vocabulary):
    workdir = tmp_path / "workdir"
    assert main(["import", str(source), str(workdir)]) == 0
    params = encoder_params(cfg)
    fresh = jax.tree.map(lambda x: jax.numpy.zeros(x.shape), params)
    fresh["head"] = {"classifier": {"bias": jax.numpy.ones(3)}}
    config = json.loads((workdir / "config.json").read_text())
    description = {"vocab_hash": Tokenizer.load(vocabulary).hash, "config": config}
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
# name: (class, further keys of its config, shapes of the weights of its head)
HEADS = {
    "pooler": ("BertModel", {}, POOLER),
    "pretraining": ("BertForPreTraining", {}, POOLER | MLM | NSP),
    "masked_lm": ("BertForMaskedLM", {}, MLM),
    "masked_lm_and_more": ("BertForMaskedLM", {}, POOLER | MLM | NSP),
    "named": ("BertForSequenceClassification", NAMED, POOLER | {"classifier": (3, 12)}),
    "counted": (
        "BertForSequenceClassification",
        {"num_labels": 3},
        POOLER | {"classifier": (3, 12)},
    ),
    "regression": (
        "BertForSequenceClassification",
        {"id2label": {"0": "x"}},
        POOLER | {"classifier": (1, 12)},
    ),
    "answers": ("BertForQuestionAnswering", {}, {"qa_outputs": (2, 12)}),
}


def head_tensors(shapes):
    """Return weights and biases; `cls.predictions` has no weight of its own."""
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        if name != "cls.predictions":
            tensors[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    return tensors


def rewrite(directory, changes, tensors):
    """Adds to `config.json` and to the tensors, which then have the names with "bert."."""
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))
    old = safetensors.load_file(directory / "model.safetensors")
    is_bare = config["architectures"] == ["BertModel"]
    old = {name if is_bare else f"bert.{name}": array for name, array in old.items()}
    if is_bare:
        tensors = {name.removeprefix("bert."): array for name, array in tensors.items()}
    safetensors.save_file(old | tensors, directory / "model.safetensors")


DEFAULT = ("pretraining", "masked_lm", "named", "answers")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in DEFAULT else pytest.mark.slow) for n in HEADS]
)
def test_every_class_goes_out_as_it_came_in(source, tmp_path, capsys, name):
    kind, changes, shapes = HEADS[name]
    changes = changes | {"architectures": [kind], "torch_dtype": "float32"}
    rewrite(source, changes, head_tensors(shapes))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 9}')
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    assert f": {kind}, 0.0 million parameters" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "workdir"), str(tmp_path / "again")]) == 0
    before, after = (
        safetensors.load_file(d / "model.safetensors") for d in (source, tmp_path / "again")
    )
    assert sorted(before) == sorted(after)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    configs = [json.loads((d / "config.json").read_text()) for d in (source, tmp_path / "again")]
    assert configs[0] == configs[1]
    for file in ("vocab.txt", "tokenizer_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (source / file).read_bytes()


def test_token_classifier_is_an_encoder_and_says_so(source, tmp_path, capsys):
    tensors = head_tensors(HEADS["named"][2])
    rewrite(source, {"architectures": ["BertForTokenClassification"]}, tensors)
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    said = capsys.readouterr().out
    assert "the head of BertForTokenClassification has no place here" in said
    assert "not used, as our model has no place for them: classifier.bias" in said
    assert main(["export", str(tmp_path / "workdir"), str(tmp_path / "again")]) == 0
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert "id2label" not in config


def test_cased_vocabulary_stays_cased(source, tmp_path, capsys):
    lines = (source / "vocab.txt").read_text().replace("w0\n", "Paris\n").replace("w1\n", "été\n")
    (source / "vocab.txt").write_text(lines)
    assert main(["import", str(source), str(tmp_path / "lower")]) == 0
    assert "1 pieces have capitals, which no text will have" in capsys.readouterr().out
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert main(["import", str(source), str(tmp_path / "cased")]) == 0
    assert "cased: text keeps its capitals and accents" in capsys.readouterr().out
    lower, cased = (Tokenizer.load(tmp_path / name / "vocab.txt") for name in ("lower", "cased"))
    for tokenizer, wanted in ((lower, [1, 1]), (cased, [5, 6])):
        assert tokenizer.encode_batch(["Paris été"])[0].tolist() == wanted
    for directory, tokenizer in (("lower", lower), ("cased", cased)):
        run = newest_verified(tmp_path / directory).manifest.run
        assert run["vocab_hash"] == tokenizer.hash
    assert cased.hash != lower.hash


def test_pieces_may_be_in_tokenizer_json(source, vocabulary, tmp_path):
    pieces = vocabulary.read_text().split()
    library = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    library.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    library.save(str(source / "tokenizer.json"))
    (source / "vocab.txt").unlink()
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    found = Tokenizer.load(tmp_path / "workdir/vocab.txt")
    assert found.pieces == tuple(pieces)
    assert not found.cleaning.do_lower_case
    assert main(["export", str(tmp_path / "workdir"), str(tmp_path / "again")]) == 0
    again = Tokenizer.load(tmp_path / "again")
    assert (again.pieces, again.cleaning) == (found.pieces, found.cleaning)


@pytest.mark.parametrize("arch", ["bert", "sibert"])
def test_table_with_spare_rows_keeps_them(cfg, encoder_params, source, tmp_path, capsys, arch):
    lines = (source / "vocab.txt").read_text().splitlines()[:-7]
    if arch == "sibert":
        cfg = dataclasses.replace(cfg, arch="sibert", norm_eps=1e-6)
        shutil.rmtree(source)
        exported.write(source, cfg, encoder_params(cfg), "a test")
    (source / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    assert "7 rows of the token table have no piece" in capsys.readouterr().out
    tokenizer = Tokenizer.load(tmp_path / "workdir/vocab.txt")
    assert tokenizer.vocab_size == cfg.vocab_size
    assert tokenizer.is_special[-7:].all()
    assert main(["export", str(tmp_path / "workdir"), str(tmp_path / "again")]) == 0
    weights = [(d / "model.safetensors").read_bytes() for d in (source, tmp_path / "again")]
    assert weights[0] == weights[1]
    if arch == "bert":
        assert (tmp_path / "again/vocab.txt").read_text().splitlines() == lines
