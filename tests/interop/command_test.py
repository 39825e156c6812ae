"""The command turns directories of weights into workdirs and back without changing a bit."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import CheckpointError, restore_params, start_from
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "vocab.txt").unlink(), "vocab.txt is missing"),
        (lambda d: (d / "vocab.txt").write_text("[PAD]\n"), "lacks the special pieces"),
        (
            lambda d: (d / "vocab.txt").write_text((d / "vocab.txt").read_text() + "more\n"),
            "has 51 pieces and the token table 50",
        ),
        (lambda d: (d / "config.json").write_text("nonsense"), "config.json cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(source, tmp_path, capsys, spoil, message):
    spoil(source)
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "workdir").exists()


def test_only_a_workdir_is_exported_and_nothing_is_overwritten(source, tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "name the workdir of a run" in capsys.readouterr().err
    assert main(["import", str(source), str(tmp_path / "workdir")]) == 0
    assert main(["export", str(tmp_path / "workdir"), str(source)]) == 2
    assert "not empty" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        restore_params(tmp_path, {})
