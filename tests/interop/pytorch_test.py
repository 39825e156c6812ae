"""Hugging Face's PyTorch models compute what ours do from the same files, both ways."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.interop import hugging_face
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.apply import apply_model
from sibert_jax.tasks.classification import Classification, ClassificationConfig
from sibert_jax.tasks.pretraining import Pretraining, PretrainingConfig
from sibert_jax.tasks.pretraining.heads import Readout
from sibert_jax.tasks.question_answering.task import QuestionAnswering, QuestionAnsweringConfig

torch = pytest.importorskip("torch", reason="needs torch and transformers")
transformers = pytest.importorskip("transformers", reason="needs torch and transformers")

LENGTH = 16
BASE = {"vocab_size": 30_522, "max_len": 512, "width": 768, "depth": 12, "num_heads": 12}
SIZES = [
    pytest.param({}, id="small"),
    pytest.param(BASE | {"ffn_width": 3072}, id="base", marks=pytest.mark.slow),
]


def pretraining(cfg: ModelConfig, nsp: bool = True) -> Pretraining:
    settings = PretrainingConfig(
        name="pretraining",
        head="tied",
        unigram_prior=False,
        nsp=nsp,
        mask_rate=0.15,
        whole_word=False,
        loss_blocks=1,
        loss_scale=1.0,
    )
    return Pretraining(cfg, settings, LENGTH)


def classification(cfg: ModelConfig) -> Classification:
    settings = ClassificationConfig(name="classification", dataset="mnli", loss_scale=1.0)
    return Classification(cfg, settings, (LENGTH,))


def question_answering(cfg: ModelConfig) -> QuestionAnswering:
    settings = QuestionAnsweringConfig(
        name="question_answering",
        unanswerable=True,
        max_query_len=64,
        doc_stride=128,
        max_answer_len=30,
        n_best=20,
        null_threshold=0.0,
        strict=False,
        loss_scale=1.0,
    )
    return QuestionAnswering(cfg, settings, (LENGTH,))


# Head, their class, our task, and their outputs in the order of ours.
KINDS = [
    (
        "pretraining",
        "BertForPreTraining",
        pretraining,
        ("prediction_logits", "seq_relationship_logits"),
    ),
    ("classification", "BertForSequenceClassification", classification, ("logits",)),
    (
        "question_answering",
        "BertForQuestionAnswering",
        question_answering,
        ("start_logits", "end_logits"),
    ),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("head", "kind", "make_task", "outputs"), KINDS)
def test_both_compute_the_same(cfg, tmp_path, size, head, kind, make_task, outputs):
    cfg = dataclasses.replace(cfg, **size)
    theirs = random_bert(getattr(transformers, kind), cfg)
    theirs.save_pretrained(tmp_path / "theirs")
    found = hugging_face.read(tmp_path / "theirs")
    assert (found.head, found.unused) == (head, ())

    inputs = random_inputs(cfg)
    arguments = {name: torch.tensor(x) for name, x in inputs.items()}
    wanted = assert_same(theirs, make_task(found.cfg), found.params, inputs, outputs)

    hugging_face.write(tmp_path / "ours", found.cfg, found.params, found.head, num_labels=3)
    again = getattr(transformers, kind).from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        repeated = again(**arguments)
    for name in outputs:
        assert torch.equal(wanted[name], repeated[name])


@pytest.mark.parametrize("size", SIZES)
def test_masked_language_models_without_a_pooler_are_read_too(cfg, tmp_path, size):
    cfg = dataclasses.replace(cfg, **size)
    theirs = random_bert(transformers.BertForMaskedLM, cfg)
    theirs.save_pretrained(tmp_path)
    found = hugging_face.read(tmp_path)
    assert (found.head, found.unused) == ("pretraining", ())
    assert sorted(found.params["head"]) == ["output_bias", "transform", "transform_norm"]
    task = pretraining(found.cfg, nsp=False)
    assert_same(theirs, task, found.params, random_inputs(cfg), ("logits",))


def test_the_bare_encoder_is_read_with_its_pooler(cfg, tmp_path):
    theirs = random_bert(transformers.BertModel, cfg)
    theirs.save_pretrained(tmp_path)
    found = hugging_face.read(tmp_path)
    assert (found.head, found.unused, list(found.params["head"])) == ("", (), ["pooler"])


def assert_same(theirs, task, params, inputs, names: tuple[str, ...]):
    """Compares outputs and returns theirs; `names` are theirs, in the order of ours."""
    with torch.no_grad():
        wanted = theirs(**{name: torch.tensor(x) for name, x in inputs.items()})
    valid = inputs["attention_mask"] == 1
    for name, found_logits in zip(names, our_outputs(task, params, inputs)):
        wanted_logits, found_logits = wanted[name].numpy(), np.asarray(found_logits)
        if wanted_logits.shape[:2] == valid.shape:  # a logit a token: padding says nothing
            wanted_logits, found_logits = wanted_logits[valid], found_logits[valid]
        np.testing.assert_allclose(found_logits, wanted_logits, rtol=1e-5, atol=1e-5)
    return wanted


def random_bert(kind, cfg: ModelConfig):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=cfg.vocab_size,
        max_position_embeddings=cfg.max_len,
        hidden_size=cfg.width,
        num_hidden_layers=cfg.depth,
        num_attention_heads=cfg.num_heads,
        intermediate_size=cfg.ffn_width,
        num_labels=2 if "Question" in kind.__name__ else 3,
    )
    model = kind(config).eval()
    with torch.no_grad():  # biases start at 0 and gains at 1: make every tensor its own
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def random_inputs(cfg: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, cfg.vocab_size, (3, LENGTH))
    mask = np.ones_like(tokens)
    mask[1, 9:] = mask[2, 5:] = 0
    return {"input_ids": tokens, "token_type_ids": tokens % 2, "attention_mask": mask}


def our_outputs(task, params, inputs) -> tuple:
    """Logits; of masked-language modelling at every position."""
    num_rows, length = inputs["input_ids"].shape
    batch = {
        "tokens": jnp.asarray(inputs["input_ids"], jnp.int32),
        "segments": jnp.asarray(inputs["token_type_ids"], jnp.int32),
        "valid": jnp.asarray(inputs["attention_mask"] == 1),
        "masked_positions": jnp.broadcast_to(jnp.arange(length)[None], (num_rows, length)),
    }

    @jax.jit
    def apply(params, batch):
        first, *others, _ = apply_model(task.model, task.cfg, params, batch)
        return (first.logits() if isinstance(first, Readout) else first, *others)

    return apply(params, batch)
