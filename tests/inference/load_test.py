"""A model is used from Python as it was trained, whatever directory it is in."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

import sibert_jax
from sibert_jax.errors import EXPECTED
from sibert_jax.inference.embed import embed
from sibert_jax.interop import exported, hugging_face
from sibert_jax.interop.workdir_export import export_weights
from sibert_jax.interop.workdir_import import import_weights
from sibert_jax.model import Encoder
from sibert_jax.tasks.classification.config import ClassificationConfig
from sibert_jax.tasks.classification.task import ClassificationHead
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig
from sibert_jax.tasks.task import EncoderWithHead
from tests.builders import random_params, write_vocabulary

from .conftest import BATCH, CFG, LABELS

TEXTS = ["w1 w2 w3", "w4", "", " ".join(f"w{i}" for i in range(17)), "w5 w6", ("w1 w2", "w3")]


def test_importing_the_package_imports_no_jax():
    code = "import sibert_jax, sys; print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_vectors_are_those_of_each_text_alone(model, pooling):
    found = model("").encode(TEXTS, pooling=pooling, batch_size=2)
    assert (found.shape, found.dtype) == ((len(TEXTS), CFG.width), np.float32)
    tokenizer, encoder = model("").tokenizer, jax.jit(Encoder(CFG).apply)
    for text, vector_D in zip(TEXTS, found):
        parts = tokenizer.encode_batch([text] if isinstance(text, str) else text)
        tokens_L, segments_L = [tokenizer.cls_id], [0]
        for segment, part in enumerate(parts):
            tokens_L += [*part.tolist(), tokenizer.sep_id]
            segments_L += [segment] * (len(part) + 1)
        length = len(tokens_L)
        padded = (np.pad(row, (0, CFG.max_len - length))[None] for row in (tokens_L, segments_L))
        mask_BL = np.arange(CFG.max_len)[None] < length
        params = {"params": model("").params["encoder"]}
        x_BLD, _ = encoder(params, *(row.astype("int32") for row in padded), mask_BL)
        wanted_D = x_BLD[0, :length].mean(axis=0) if pooling == "mean" else x_BLD[0, 0]
        np.testing.assert_allclose(vector_D, wanted_D, atol=1e-5)


def test_no_text_has_no_vector(model):
    assert model("").encode([]).shape == (0, CFG.width)


def test_a_classifier_says_labels_and_probabilities(model):
    found = model("classification").predict(TEXTS)
    for text, record in zip(TEXTS, found):
        probabilities = record["probabilities"]
        assert tuple(probabilities) == LABELS
        assert sum(probabilities.values()) == pytest.approx(1)
        assert record["prediction"] == max(probabilities, key=probabilities.get)
        assert record["probability"] == max(probabilities.values())
        (alone,) = model("classification").predict([text])
        assert alone["probabilities"] == pytest.approx(probabilities, abs=1e-5)
    assert len({record["probabilities"]["yes"] for record in found}) == len(TEXTS)


def test_each_mask_gets_the_likeliest_tokens(model):
    model = model("pretraining")
    first, second = model.fill_mask("w1 [MASK] w2 [MASK]", top_k=CFG.vocab_size)
    assert first != second
    for guesses in (first, second):
        probabilities = [guess.probability for guess in guesses]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert {guess.token for guess in guesses} == set(model.tokenizer.pieces)
    assert model.fill_mask("w1 [MASK] w2 w3", top_k=2)[0].token in model.tokenizer.pieces


def test_an_answer_is_a_part_of_the_context(model):
    windows = QuestionAnsweringConfig(max_query_len=4, doc_stride=4)
    model = dataclasses.replace(model("question_answering"), task=windows)
    context = " ".join(f"w{i}  w{2 * i}" for i in range(20))
    found = model.answer("w1 w2?", context)
    assert found.text == context[found.start : found.end] != ""
    assert 0 < found.score <= 1


@pytest.mark.parametrize("head", ["pretraining", "classification"])
def test_a_directory_and_its_import_are_the_same_model(model, tmp_path, head):
    import_weights(model(head).directory, tmp_path / "imported")
    a, b = model(head), sibert_jax.load(tmp_path / "imported")
    np.testing.assert_array_equal(a.encode(TEXTS), b.encode(TEXTS))
    if head == "classification":
        assert a.predict(TEXTS) == b.predict(TEXTS)
    if head == "pretraining":
        assert a.fill_mask("[MASK] w1") == b.fill_mask("[MASK] w1")


def test_a_run_and_its_export_guess_as_the_run_was_evaluated(config, train_one, tmp_path):
    config.update_from_flattened_dict(
        {"task.head": "invariant", "train.num_steps": 1, "optim.head.name": "same"}
    )
    config.model.depth, config.train.eval_every_steps = 1, 0
    train_one(config, tmp_path / "run")
    export_weights(tmp_path / "run", tmp_path / "out")
    run, out = sibert_jax.load(tmp_path / "run"), sibert_jax.load(tmp_path / "out")
    guesses = run.fill_mask("the [MASK] of the class", top_k=3)
    assert guesses == out.fill_mask("the [MASK] of the class", top_k=3)
    # One step teaches nothing but the frequencies, which the head is given.
    assert {guess.token for guess in guesses} & {",", ".", "the", '"'}
    assert run.encode(["one text"]).tolist() == out.encode(["one text"]).tolist()
    (tmp_path / "run/token_counts.npy").unlink()
    with pytest.raises(EXPECTED, match=r"token_counts.npy is missing; .* give the command"):
        sibert_jax.load(tmp_path / "run").fill_mask("[MASK]")


def test_scores_are_in_the_unit_of_the_data(tmp_path):
    params = random_params(EncoderWithHead(CFG, ClassificationHead(CFG, 1)).init, BATCH, std=0.5)
    params["params"]["head"]["classifier"]["bias"] += 2.5  # the middle of the range
    task = ClassificationConfig(kind="regression", score_range=(250.0, 1000.0))
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    settings = exported.SavedTask(dataclasses.asdict(task), 24)
    exported.write(own, CFG, params["params"], "a test", ("score",), settings)
    hugging_face.write(theirs, CFG, params["params"], "classification", ("score",))
    for directory in (own, theirs):
        write_vocabulary(directory / "vocab.txt", [f"w{i}" for i in range(45)])
    scores, outputs = (
        [record["prediction"] for record in sibert_jax.load(directory).predict(TEXTS)]
        for directory in (own, theirs)
    )
    wanted = np.clip(250 + 150 * np.array(outputs), 250, 1000)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    assert len({250.0, *scores}) > 2


BAD = (
    ("", lambda m: m.predict(["w1"]), r"predict\(\) needs a model of classification, and .* holds "
     "a model without a head"),
    ("", lambda m: m.fill_mask("[MASK]"), r"fill_mask\(\) needs a model of pretraining"),
    ("", lambda m: m.answer("w1", "w2"), r"answer\(\) needs a model of question_answering"),
    ("", lambda m: m.encode("w1"), "texts='w1' is a single text; give a list"),
    ("", lambda m: m.encode(["w1"], pooling="max"), "pooling='max' is unknown; choose one of"),
    ("pretraining", lambda m: m.predict(["w1"]), "holds a model of pretraining"),
    ("pretraining", lambda m: m.fill_mask("w1"), r"\[MASK\] occurs 0 times in the text"),
    ("pretraining", lambda m: m.fill_mask("w1 " * 30 + "[MASK]"), "0 times in its first 24 tokens"),
    ("question_answering", lambda m: m.answer("w1", " "), "the context of question .* no word"),
)  # fmt: skip


@pytest.mark.parametrize(("head", "use", "message"), BAD)
def test_the_wrong_use_is_one_sentence(model, head, use, message):
    with pytest.raises(EXPECTED, match=message):
        use(model(head))


@pytest.mark.parametrize(
    ("files", "step", "message"),
    [
        ({}, None, "holds no model: name the workdir of a run with a checkpoint, a directory"),
        ({}, "best", "holds no checkpoints, so there is none of step best"),
        ({"config.json": '{"task": {}}'}, None, "has no checkpoint yet"),
    ],
)
def test_a_directory_without_a_model_is_one_sentence(tmp_path, files, step, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(EXPECTED, match=message):
        sibert_jax.load(tmp_path, step=step)


def test_vectors_of_a_file_are_in_the_order_of_its_lines(model, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("w1 w2\n\nw3\tw4 w5\n")
    embed(model("").directory, texts, tmp_path / "out.npy", None, print)
    wanted = model("").encode(["w1 w2", "", ("w3", "w4 w5")])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=1e-6)
    assert (tmp_path / "out.txt").read_bytes() == texts.read_bytes()


@pytest.mark.parametrize(
    ("content", "out", "message"),
    [
        ("", "out.npy", "texts.txt is empty"),
        ("w1\n", "out.txt", "out.txt must end in .npy"),
        ("w1\n", "no/out.npy", "no/out.npy cannot be written"),
    ],
)
def test_vectors_that_cannot_be_written_are_one_sentence(model, tmp_path, content, out, message):
    (tmp_path / "texts.txt").write_text(content)
    with pytest.raises(EXPECTED, match=message):
        embed(model("").directory, tmp_path / "texts.txt", tmp_path / out, None, print)
