"""BERT's weights pass to Hugging Face and back; PyTorch computes the same function from them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from sibert_jax.interop import hugging_face
from sibert_jax.interop.errors import InteropError
from sibert_jax.model import Encoder, ModelConfig
from sibert_jax.tasks.pretraining import Pretraining, PretrainingConfig

# As `bert-base-uncased`'s own file names them, layer 0 and what surrounds the layers.
THEIR_NAMES = {
    f"bert.{name}.{kind}"
    for names, kinds in (
        (
            (
                "embeddings.word_embeddings",
                "embeddings.position_embeddings",
                "embeddings.token_type_embeddings",
            ),
            ("weight",),
        ),
        (
            (
                "embeddings.LayerNorm",
                "encoder.layer.0.attention.self.query",
                "encoder.layer.0.attention.self.key",
                "encoder.layer.0.attention.self.value",
                "encoder.layer.0.attention.output.dense",
                "encoder.layer.0.attention.output.LayerNorm",
                "encoder.layer.0.intermediate.dense",
                "encoder.layer.0.output.dense",
                "encoder.layer.0.output.LayerNorm",
            ),
            ("weight", "bias"),
        ),
    )
    for name in names
    for kind in kinds
}


@pytest.mark.parametrize("scan_layers", [True, False])
def test_every_parameter_goes_to_its_name_and_comes_back_bit_for_bit(
    cfg, encoder_params, tmp_path, scan_layers
):
    cfg = dataclasses.replace(cfg, depth=1, scan_layers=scan_layers)
    params = encoder_params(cfg)
    hugging_face.write(tmp_path, cfg, params, head="")
    written = safetensors.load_file(tmp_path / "model.safetensors")
    assert {f"bert.{name}" for name in written} == THEIR_NAMES
    found = hugging_face.read(tmp_path)
    assert found.cfg == dataclasses.replace(cfg, branch_scaling="none", scan_layers=True)
    assert (found.head, found.unused) == ("", ())
    features = []
    for sizes, tree in ((cfg, params), (found.cfg, found.params)):
        tokens, valid = jnp.arange(8, dtype=jnp.int32)[None], jnp.ones((1, 8), bool)
        apply = jax.jit(Encoder(sizes).apply)
        features.append(apply({"params": tree["encoder"]}, tokens, tokens % 2, valid)[0])
    np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-6)
    leaves = [jax.tree.leaves(tree) for tree in (params, found.params)]
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.ravel(ours), np.ravel(theirs))


@pytest.fixture
def exported(cfg, encoder_params, tmp_path):
    hugging_face.write(tmp_path, cfg, encoder_params(cfg), head="")
    return tmp_path


def edit_tensors(directory, edit):
    path = directory / "model.safetensors"
    tensors = safetensors.load_file(path)
    edit(tensors)
    safetensors.save_file(tensors, path)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda d: edit_config(d, model_type="roberta"), "model_type is 'roberta'"),
        (lambda d: edit_config(d, hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda d: (d / "config.json").write_text("{}"), "has no key 'vocab_size'"),
        (lambda d: edit_config(d, num_attention_heads=5), "does not divide by model.num_heads=5"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:-9]
            ),
            "truncated or no safetensors file",
        ),
        (
            lambda d: edit_tensors(d, lambda t: t.pop("encoder.layer.2.output.dense.bias")),
            r"has no tensor bert.encoder.layer.2.output.dense.bias.*model.depth=3",
        ),
        (
            lambda d: edit_config(d, vocab_size=51),
            r"word_embeddings.weight is \(50, 12\).*\(51, 12\)",
        ),
        (
            lambda d: edit_config(d, intermediate_size=21),
            r"layer.0.intermediate.dense.weight is \(20, 12\).*\(21, 12\)",
        ),
        (
            lambda d: edit_tensors(
                d, lambda t: t.update({"embeddings.LayerNorm.bias": np.zeros(12, np.int32)})
            ),
            "embeddings.LayerNorm.bias is int32",
        ),
    ],
)
def test_what_does_not_fit_is_named(exported, spoil, message):
    spoil(exported)
    with pytest.raises(InteropError, match=message):
        hugging_face.read(exported)


def test_what_has_no_place_is_told(exported):
    edit_tensors(exported, lambda t: t.update({"adapter.weight": np.zeros(3, np.float32)}))
    assert hugging_face.read(exported).unused == ("adapter.weight",)


def test_tied_copies_must_agree(exported):
    same = {"cls.predictions.bias": np.zeros(50, np.float32)}

    def add(tensors, offset):
        table = tensors["embeddings.word_embeddings.weight"]
        tensors |= same | {"cls.predictions.decoder.weight": table + np.float32(offset)}
        safetensors.save_file(tensors, exported / "model.safetensors")

    edit_tensors(exported, lambda t: add(t, 0.0))
    assert hugging_face.read(exported).head == "pretraining"
    edit_tensors(exported, lambda t: add(t, 1.0))
    with pytest.raises(InteropError, match="decoder.weight differs from"):
        hugging_face.read(exported)


def test_nothing_is_overwritten_and_nothing_left_out(cfg, encoder_params, exported, tmp_path):
    with pytest.raises(InteropError, match="not empty"):
        hugging_face.write(exported, cfg, encoder_params(cfg), head="")
    params = encoder_params(cfg) | {"head": {"output": np.zeros((50, 12), np.float32)}}
    with pytest.raises(InteropError, match="head/output has no place in BertForPreTraining"):
        hugging_face.write(tmp_path / "new", cfg, params, head="pretraining")
    sibert = dataclasses.replace(cfg, arch="sibert")
    with pytest.raises(InteropError, match="'sibert' cannot be written as Hugging Face's BERT"):
        hugging_face.write(tmp_path / "new", sibert, params, head="")
    assert not (tmp_path / "new").exists()


BASE = {"vocab_size": 30_522, "max_len": 512, "width": 768, "depth": 12, "num_heads": 12}


@pytest.mark.parametrize(
    "size", [{}, pytest.param(BASE | {"ffn_width": 3072}, marks=pytest.mark.slow)]
)
def test_pytorch_computes_the_same_from_either_side(cfg, tmp_path, size):
    torch = pytest.importorskip("torch", reason="needs torch and transformers")
    transformers = pytest.importorskip("transformers", reason="needs torch and transformers")
    sizes = dataclasses.replace(cfg, **size)
    theirs = random_bert(torch, transformers.BertForPreTraining, sizes)
    theirs.save_pretrained(tmp_path / "theirs")
    found = hugging_face.read(tmp_path / "theirs")
    assert (found.head, found.unused) == ("pretraining", ())

    inputs = random_inputs(sizes)
    arguments = {name: torch.tensor(x) for name, x in inputs.items()}
    with torch.no_grad():
        wanted = theirs(**arguments)
    logits, nsp_logits = our_logits(found, inputs)
    valid = inputs["attention_mask"] == 1
    wanted_logits = wanted["prediction_logits"].numpy()
    np.testing.assert_allclose(logits[valid], wanted_logits[valid], rtol=1e-5, atol=1e-5)
    wanted_nsp = wanted["seq_relationship_logits"].numpy()
    np.testing.assert_allclose(nsp_logits, wanted_nsp, rtol=1e-5, atol=1e-5)

    hugging_face.write(tmp_path / "ours", found.cfg, found.params, head=found.head)
    again = transformers.BertForPreTraining.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        repeated = again(**arguments)
    for name in ("prediction_logits", "seq_relationship_logits"):
        assert torch.equal(wanted[name], repeated[name])


def random_bert(torch, kind, cfg: ModelConfig):
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=cfg.vocab_size,
        max_position_embeddings=cfg.max_len,
        hidden_size=cfg.width,
        num_hidden_layers=cfg.depth,
        num_attention_heads=cfg.num_heads,
        intermediate_size=cfg.ffn_width,
    )
    model = kind(config).eval()
    with torch.no_grad():  # biases start at 0 and gains at 1: make every tensor its own
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def random_inputs(cfg: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, cfg.vocab_size, (3, 16))
    mask = np.ones_like(tokens)
    mask[1, 9:] = mask[2, 5:] = 0
    return {"input_ids": tokens, "token_type_ids": (tokens % 2), "attention_mask": mask}


def our_logits(found: hugging_face.HuggingFaceBert, inputs) -> tuple[np.ndarray, np.ndarray]:
    """MLM logits at every position, and next-sentence logits."""
    settings = PretrainingConfig(
        name="pretraining",
        head="tied",
        unigram_prior=False,
        nsp=True,
        mask_rate=0.15,
        whole_word=False,
        loss_scale=1.0,
    )
    task = Pretraining(found.cfg, settings, 16)
    num_rows, length = inputs["input_ids"].shape
    batch = {
        "tokens": jnp.asarray(inputs["input_ids"], jnp.int32),
        "segments": jnp.asarray(inputs["token_type_ids"], jnp.int32),
        "valid": jnp.asarray(inputs["attention_mask"] == 1),
        "masked_positions": jnp.broadcast_to(jnp.arange(length)[None], (num_rows, length)),
    }
    logits, nsp_logits, _ = jax.jit(task.apply)(found.params, batch)
    return np.asarray(logits), np.asarray(nsp_logits)
