"""The command: a directory in, one in few bits out, which loads, exports and continues."""

import json
import re

import jax
import numpy as np
import pytest

import sibert_jax
from sibert_jax import command
from sibert_jax.data import ByteBPE
from sibert_jax.interop import exported, foreign, gpt2, hugging_face
from sibert_jax.interop.workdir_export import export_weights
from sibert_jax.model import Encoder
from sibert_jax.quantize import directory
from sibert_jax.quantize.__main__ import main
from tests.builders import model_config, random_params
from tests.inference.conftest import LABELS

TEXTS = ["w1 w2 w3", "w4", ("w1 w2", "w3")]
BLOCKS = [*(f"encoder/layers/{i}" for i in range(3)), "head/pooler", "head/classifier"]
WORDS = ("--group=4", "--steps=10", "--batches=2", "--batch_size=2")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"w{i} w{i + 1}\tw{i + 2}\n\n" for i in range(40)))
    return path


@pytest.fixture(scope="module")
def done(bert, text, tmp_path_factory):
    """A classifier in 8 bits."""
    out = tmp_path_factory.mktemp("folder") / "done"
    words = ("--bits=8", "--method=rtn", f"--data={text}", *WORDS)
    assert not status(bert("classification"), out, *words)
    return out


def status(*words) -> int:
    """Of the command."""
    with pytest.raises(SystemExit) as ended:
        command.run(main, [str(word) for word in words])
    return ended.value.code


def test_a_classifier_in_few_bits_loads_and_exports(bert, done, tmp_path):
    out, manifest = done, json.loads((done / "quantization.json").read_text())
    assert [block["block"] for block in manifest["blocks"]] == BLOCKS
    assert manifest["bytes"] < manifest["bytes_float32"]
    assert "round to nearest" in (out / "README.md").read_text()
    model, whole = sibert_jax.load(out), sibert_jax.load(bert("classification"))
    np.testing.assert_allclose(model.encode(TEXTS), whole.encode(TEXTS), atol=0.1)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) == manifest["bytes"]
    assert model.labels == LABELS
    found, wanted = model.predict(TEXTS), whole.predict(TEXTS)
    for a, b in zip(found, wanted, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=0.1)
        assert a != b
    export_weights(out, tmp_path / "floats")
    theirs = hugging_face.read(tmp_path / "floats")
    jax.tree.map(np.testing.assert_array_equal, theirs.params, exported.read(out)[1])
    assert theirs.labels == LABELS


@pytest.mark.slow
def test_a_gpt2_in_few_bits_continues_texts_and_exports(text, tmp_path):
    source, out, floats = (tmp_path / name for name in ("source", "out", "floats"))
    cfg = model_config(arch="gpt", vocab_size=257, num_segments=1)
    tokens, valid = np.ones((1, 4), np.int32), np.ones((1, 4), bool)
    encoder = random_params(Encoder(cfg).init, tokens, tokens, valid)["params"]
    gpt2.write(source, cfg, {"encoder": encoder}, end_id=256)
    ByteBPE.of_merges([], 257).save(source / "vocab.json")
    assert not status(source, out, "--bits=8", f"--data={text}", *WORDS)
    assert isinstance(sibert_jax.load(out).generate("w1", 3), str)
    assert "GPT2LMHeadModel" in export_weights(out, floats)
    theirs = foreign.read(floats).params
    jax.tree.map(np.testing.assert_array_equal, theirs, exported.read(out)[1])


@pytest.mark.slow  # without the files: model_test.py
def test_a_killed_run_continues_at_its_block(bert, text, tmp_path, capsys, monkeypatch):
    model = bert("classification")
    command_line = (model, tmp_path / "out", "--method=rtn", f"--data={text}", *WORDS)
    keep = directory.Unfinished.keep

    def killed(self, done):
        keep(self, done)
        if done.block == "encoder/layers/1":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(directory.Unfinished, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            main([str(word) for word in command_line])
    assert status(*command_line, "--bits=3") == 2
    assert "was started with different bits; give the same command" in capsys.readouterr().err
    assert not status(*command_line)
    lines = capsys.readouterr().out.splitlines()
    assert re.search("2 blocks are already done", lines[0])
    assert lines[1].startswith("encoder/layers/2: error ")
    manifest = json.loads((tmp_path / "out/quantization.json").read_text())
    assert [block["block"] for block in manifest["blocks"]] == BLOCKS
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "vocab.txt", "README.md"} < files
    assert "unfinished" not in files


@pytest.mark.parametrize(
    ("source", "target", "words", "message"),
    [
        ("done", "new", (), "done is already quantized; name the model that it was made from."),
        ("bert", "done", (), "done holds a model already; name a new directory."),
        ("bert", "new", ("--data=",), "so it has no training text to calibrate on; name"),
        ("bert", "new", ("--batches=99",), "text.txt has 5 examples of 24 tokens, and 99 batches "
         "of 2 need 198; give more text, or fewer with --batches and --batch_size"),
        ("bert", "new", ("--batches=0",), "--batches=0 must be at least 1."),
        ("bert", "new", ("--group=7",), "--group=7 does not divide the 12 inputs of encoder/embed"),
        ("bert", "new", ("--bits=1",), "--bits=1 must be one of 2, 3, 4, 8."),
        ("nothing", "new", (), "nothing holds no model: name the workdir of a run"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    bert, done, text, tmp_path, capsys, source, target, words, message
):
    places = {"bert": bert(""), "done": done}
    given = [f"--data={text}", *WORDS, *words]
    if "--data=" in words:
        given = [word for word in given if not word.startswith("--data=")]
    ended = status(
        places.get(source, tmp_path / source), places.get(target, tmp_path / target), *given
    )
    assert ended == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
