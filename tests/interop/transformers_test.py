"""Equal to Hugging Face's `transformers`: outputs to 1e-5, weights to the bit.

Needs torch and transformers here or in the Python that HF_PY names.
"""

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.interop import hugging_face
from sibert_jax.interop.__main__ import main
from sibert_jax.model import Encoder, ModelConfig
from sibert_jax.tasks.classification.task import ClassificationHead
from sibert_jax.tasks.pretraining.heads import OutputProjection, StandardHead
from sibert_jax.tasks.question_answering.task import SpanHead
from sibert_jax.tasks.task import EncoderWithHead
from sibert_jax.tasks.token_classification.task import TokenHead
from tests.builders import random_params

from .conftest import BERT
from .transformers_side import cases

pytestmark = pytest.mark.slow
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SIDE = pathlib.Path(__file__).with_name("transformers_side.py")


def on_their_side(action: str, directory: pathlib.Path, side: pathlib.Path = SIDE) -> None:
    here = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    if not here and "HF_PY" not in os.environ:
        pytest.skip("needs torch and transformers; name a Python that has them in HF_PY")
    command = [os.environ.get("HF_PY", sys.executable), side, action, directory]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """DIR/CASE: theirs, what it computes (wanted), imported, exported, and what that computes."""
    directory = tmp_path_factory.mktemp("models")
    on_their_side("make", directory)
    for case in cases():
        here = directory / case
        if main(["import", str(here / "theirs"), str(here / "imported")]) == 0:
            main(["export", str(here / "imported"), str(here / "exported")])
    for name, (cfg, params, head, labels) in ours().items():
        hugging_face.write(directory / name / "exported", cfg, params, head, labels)
    on_their_side("load", directory)
    return directory


# Names of the outputs, in the order in which our models return them.
OUTPUTS = {
    "": ("last_hidden_state",),
    "pretraining": ("prediction_logits", "seq_relationship_logits"),
    "classification": ("logits",),
    "question_answering": ("start_logits", "end_logits"),
    "token_classification": ("logits",),
}


@pytest.mark.parametrize("case", cases())
def test_ours_computes_what_theirs_does(models, case):
    found = hugging_face.read(models / case / "theirs")
    assert_same(found.cfg, found.params, found.head, models / case / "wanted")


@pytest.mark.parametrize("case", cases())
def test_what_came_in_goes_out(models, case):
    wanted, found = models / case / "wanted", models / case / "found"
    assert json.loads((found / "problems.json").read_text()) == {}
    assert (found / "config.json").read_text() == (wanted / "config.json").read_text()
    before, after = np.load(wanted / "weights.npz"), np.load(found / "weights.npz")
    assert sorted(before) == sorted(after)
    for key in before:
        # Of an untied output, transformers adds the decoder's bias alone and keeps another.
        if "untied" not in case or key != "cls.predictions.bias":
            np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    before, after = np.load(wanted / "outputs.npz"), np.load(found / "outputs.npz")
    for key in before:  # PyTorch's sums depend on where an array lies
        np.testing.assert_allclose(after[key], before[key], rtol=0, atol=1e-6, err_msg=key)
    vocabularies = [(models / case / d / "vocab.txt").read_bytes() for d in ("theirs", "exported")]
    assert vocabularies[0] == vocabularies[1]


RUNS = (
    ("", (), ()),
    ("pretraining", ("nsp",), ()),
    ("pretraining", (), ()),
    ("pretraining", ("output",), ()),
    ("classification", (), ("entailment", "neutral", "contradiction")),
    ("classification", (), ("score",)),
    ("question_answering", (), ()),
    ("token_classification", (), ("O", "B-PER", "I-PER")),
)


@functools.cache
def ours() -> dict:
    """Runs of ours: sizes, parameters, head, labels."""
    runs, inputs = {}, dict.fromkeys(INPUTS, np.ones((1, 16), np.int64))
    for num_segments, (head, modules, labels) in itertools.product((1, 2), RUNS):
        cfg = dataclasses.replace(BERT, num_segments=num_segments, depth=2, dropout=0.1)
        cfg = dataclasses.replace(cfg, branch_scaling="none", init_std=0.5)
        init = our_model(cfg, head, modules, len(labels)).init
        params = random_params(init, *our_arguments(inputs, head), std=0.3)["params"]
        name = "-".join(["our", str(num_segments), head or "model", *modules, *labels[:1]])
        runs[name] = (cfg, params if head else {"encoder": params}, head, labels)
    return runs


def our_model(cfg: ModelConfig, head: str, modules: tuple[str, ...], num_labels: int) -> nn.Module:
    if not head:
        return Encoder(cfg)
    heads = {
        "pretraining": lambda: StandardHead(cfg, "output" not in modules, "nsp" in modules, ()),
        "classification": lambda: ClassificationHead(cfg, num_labels),
        "question_answering": lambda: SpanHead(cfg),
        "token_classification": lambda: TokenHead(cfg, num_labels, None),
    }
    return EncoderWithHead(cfg, heads[head]())


def our_arguments(inputs, head: str) -> tuple:
    tokens, segments, mask = (jnp.asarray(inputs[name], jnp.int32) for name in INPUTS)
    valid = mask == 1
    if not head:
        return tokens, segments, valid
    everywhere = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    batch = {"tokens": tokens, "segments": segments, "attention_mask": valid}
    return (batch | {"masked_positions": everywhere},)


@functools.cache
def compiled(*model):
    return jax.jit(our_model(*model).apply)


def assert_same(cfg, params, head, directory) -> None:
    """Compares all of our outputs with theirs, where there is no padding."""
    inputs, wanted = (dict(np.load(directory / f"{name}.npz")) for name in ("inputs", "outputs"))
    if "logits" in wanted and head == "pretraining":  # of BertForMaskedLM
        wanted["prediction_logits"] = wanted.pop("logits")
    modules = tuple(sorted(params.get("head", {})))
    outputs = {"classifier", "tagger"} & set(modules)
    num_labels = sum(len(params["head"][name]["bias"]) for name in outputs)
    apply = compiled(cfg, head, modules, num_labels)
    variables = {"params": params if head else params["encoder"]}
    outputs, _ = apply(variables, *our_arguments(inputs, head))
    outputs = outputs if type(outputs) is tuple else (outputs,)
    valid = inputs["attention_mask"] == 1
    names = [name for name in OUTPUTS[head] if name in wanted]
    assert names
    for name, output in zip(names, outputs):
        found = np.asarray(output.logits() if isinstance(output, OutputProjection) else output)
        expected = wanted[name]
        if expected.shape[:2] == valid.shape:  # a value a token: padding says nothing
            found, expected = found[valid], expected[valid]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", ours())
def test_theirs_computes_what_ours_does(models, case):
    cfg, params, head, labels = ours()[case]
    found = models / case / "found"
    assert json.loads((found / "problems.json").read_text()) == {}
    assert_same(cfg, params, head, found)
    if labels:
        config = json.loads((found / "config.json").read_text())
        assert list(config["id2label"].values()) == list(labels)
        assert config["label2id"] == {label: i for i, label in enumerate(labels)}
