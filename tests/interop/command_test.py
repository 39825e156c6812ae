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
    restore_params,
    start_from,
)
from sibert_jax.data import Tokenizer
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.__main__ import main


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("".join(f"{piece}\n" for piece in [*special, *(f"w{i}" for i in range(45))]))
    return path


@pytest.fixture
def source(cfg, encoder_params, vocabulary, tmp_path):
    """BERT as Hugging Face keeps it, with a vocabulary."""
    directory = tmp_path / "source"
    hugging_face.write(directory, cfg, encoder_params(cfg), head="")
    shutil.copyfile(vocabulary, directory / "vocab.txt")
    return directory


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


def test_a_run_starts_from_what_was_imported(cfg, encoder_params, source, tmp_path, vocabulary):
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


def heads() -> dict[str, tuple[str, dict]]:
    """By name: the class, what its config says more, and the tensors of its head."""

    def tensors(**shapes):
        rng = np.random.default_rng(0)
        return {
            name.replace("__", "."): rng.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }

    pooler = tensors(bert__pooler__dense__weight=(12, 12), bert__pooler__dense__bias=12)
    mlm = tensors(
        cls__predictions__transform__dense__weight=(12, 12),
        cls__predictions__transform__dense__bias=12,
        cls__predictions__transform__LayerNorm__weight=12,
        cls__predictions__transform__LayerNorm__bias=12,
        cls__predictions__bias=50,
    )
    nsp = tensors(cls__seq_relationship__weight=(2, 12), cls__seq_relationship__bias=2)
    three = tensors(classifier__weight=(3, 12), classifier__bias=3)
    one = tensors(classifier__weight=(1, 12), classifier__bias=1)
    named = {"id2label": LABELS, "label2id": {v: int(k) for k, v in LABELS.items()}}
    multi = {"problem_type": "multi_label_classification", "finetuning_task": "x"}
    classification = "BertForSequenceClassification"
    return {
        "pooler": ("BertModel", {}, pooler),
        "pretraining": ("BertForPreTraining", {}, pooler | mlm | nsp),
        "masked_lm": ("BertForMaskedLM", {}, mlm),
        "masked_lm_and_more": ("BertForMaskedLM", {}, pooler | mlm | nsp),
        "named": (classification, named | multi, pooler | three),
        "counted": (classification, {"num_labels": 3}, pooler | three),
        "regression": (classification, {"id2label": {"0": "x"}}, pooler | one),
        "answers": (
            "BertForQuestionAnswering",
            {},
            tensors(qa_outputs__weight=(2, 12), qa_outputs__bias=2),
        ),
    }


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


@pytest.mark.parametrize("name", heads())
def test_every_class_goes_out_as_it_came_in(source, tmp_path, capsys, name):
    kind, changes, tensors = heads()[name]
    rewrite(source, changes | {"architectures": [kind], "torch_dtype": "float32"}, tensors)
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


def test_a_token_classifier_is_an_encoder_and_says_so(source, tmp_path, capsys):
    _, _, tensors = heads()["named"]
    rewrite(source, {"architectures": ["BertForTokenClassification"]}, tensors)
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    said = capsys.readouterr().out
    assert "the head of BertForTokenClassification has no place here" in said
    assert "not used, as our model has no place for them: classifier.bias" in said
    assert main(["export", str(tmp_path / "workdir"), str(tmp_path / "again")]) == 0
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert "id2label" not in config


def test_a_cased_vocabulary_stays_cased(source, tmp_path, capsys):
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


def test_a_directory_without_vocab_txt_has_its_pieces_in_tokenizer_json(
    source, vocabulary, tmp_path
):
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
def test_a_table_with_spare_rows_keeps_them(cfg, encoder_params, source, tmp_path, capsys, arch):
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "vocab.txt").unlink(), "vocab.txt is missing"),
        (lambda d: (d / "vocab.txt").write_text("[PAD]\n"), "lacks the special tokens"),
        (
            lambda d: (d / "vocab.txt").write_text((d / "vocab.txt").read_text() + "more\n"),
            "has 51 pieces and the token table 50",
        ),
        (lambda d: (d / "config.json").write_text("nonsense"), "config.json cannot be read"),
        (
            lambda d: (d / "tokenizer_config.json").write_text('{"do_lower_case": "false"}'),
            "do_lower_case is 'false', wanted bool",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(source, tmp_path, capsys, spoil, message):
    spoil(source)
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert-base-uncased", "bert-base-uncased does not exist; name a directory"),
        ("source/vocab.txt", "vocab.txt is a file; name a directory"),
    ],
)
def test_a_source_that_is_no_directory_is_named(source, tmp_path, capsys, name, message):
    assert main(["import", str(tmp_path / name), str(tmp_path / "workdir")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "workdir").exists()


def test_a_target_that_exists_is_left_alone(source, tmp_path, capsys):
    for name in ("file", "directory/file"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        target = tmp_path / name.split("/")[0]
        assert main(["import", str(source), str(target)]) == 2
        assert f"{target} is there and not empty" in capsys.readouterr().err
        assert path.read_text() == "mine"


def test_only_a_workdir_is_exported_and_nothing_is_overwritten(source, tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "name the workdir of a run" in capsys.readouterr().err
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    assert main(["export", str(tmp_path / "workdir"), str(source)]) == 2
    assert "not empty" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        restore_params(tmp_path, {})
