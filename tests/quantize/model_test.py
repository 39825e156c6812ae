"""A model in few bits: block by block, never worse than rounded to nearest."""

import dataclasses

import jax
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.homogeneity import analyse
from sibert_jax.interop.packed import Packed, pack_all
from sibert_jax.interop.per_layer import flatten, unflatten
from sibert_jax.interop.quantized import Quantized, dequantized
from sibert_jax.model import Encoder
from sibert_jax.quantize import Settings, quantize

from .conftest import BATCHES, CFG, MODULE

TABLES = ("head/output", *(f"encoder/embed/{k}" for k in ("token", "position", "segment")))
BLOCKS = ["encoder/stem", "encoder/layers/0", "encoder/layers/1", "head/transform"]


def run(params, bits: int, **settings):
    """Tensors and blocks of a run of a few steps."""
    blocks = []
    given = {"group": 4, "steps": 30} | settings
    earlier = given.pop("done", None)
    tensors = quantize(
        MODULE, params, BATCHES, Settings(bits=bits, **given), done=earlier, keep=blocks.append
    )
    return tensors, blocks


@pytest.fixture(scope="module")
def two_bits(params):
    return run(params, 2)


@pytest.fixture(scope="module")
def outputs():
    """Features of the encoder on all batches, of flat parameters."""
    names = ("tokens", "segments", "attention_mask")
    apply = jax.jit(lambda params, *arrays: Encoder(CFG).apply({"params": params}, *arrays)[0])

    def of(flat):
        params = unflatten(dict(flat), scan_layers=CFG.scan_layers)["encoder"]
        return np.stack([apply(params, *(batch[k] for k in names)) for batch in BATCHES])

    return of


def test_blocks_come_in_the_order_of_the_forward_pass(two_bits):
    assert [done.block for done in two_bits[1]] == BLOCKS


@pytest.mark.parametrize("symmetric", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bits", [2, *(pytest.param(b, marks=pytest.mark.slow) for b in (3, 4, 8))])
def test_no_block_is_worse_than_rounded_to_nearest(params, two_bits, bits, symmetric):
    _, blocks = run(params, bits, symmetric=symmetric) if bits > 2 or symmetric else two_bits
    assert all(done.error <= done.nearest for done in blocks)
    if bits <= 3:
        layers = [done for done in blocks if "layers" in done.block]
        assert all(done.error < 0.8 * done.nearest for done in layers)


@pytest.mark.slow  # of each block: the test before
def test_the_features_are_nearer_to_those_of_the_float_model(params, two_bits, outputs):
    wanted = outputs(flatten(params, scan_layers=True))
    nearest, _ = run(params, 2, method="rtn")
    off = {
        name: np.square(outputs(dequantized(tensors)) - wanted).sum()
        for name, tensors in (("nearest", nearest), ("tuned", two_bits[0]))
    }
    assert off["tuned"] < 0.7 * off["nearest"]


def test_matrices_and_tables_have_their_bits_and_vectors_are_floats(params, two_bits):
    flat = flatten(params, scan_layers=True)
    assert list(two_bits[0]) == list(flat)
    for name, tensor in two_bits[0].items():
        if not isinstance(tensor, Quantized):
            np.testing.assert_array_equal(tensor, flat[name])
            assert name.endswith(("scale", "bias"))
            continue
        assert tensor.form.bits == (8 if name in TABLES else 2)
        assert tensor.float32().shape == flat[name].shape


def test_an_interrupted_run_ends_in_the_same_bits(params, two_bits):
    tensors, blocks = two_bits
    again, later = run(params, 2, done={done.block: done for done in blocks[:3]})
    assert [done.block for done in later] == BLOCKS[3:]
    for name, tensor in dequantized(tensors).items():
        np.testing.assert_array_equal(dequantized(again)[name], tensor)


def test_the_scales_of_integers_that_are_held_are_invariant(two_bits):
    """Codes and zero points are constants; scales, gains and biases are the parameters."""
    tensors = {k: x for k, x in two_bits[0].items() if k.startswith("encoder/")}
    held = {k: x for k, x in pack_all(tensors).items() if isinstance(x, Packed)}
    scales = tensors | {k: x.parts["scale"] for k, x in held.items()}
    module = Encoder(dataclasses.replace(CFG, scan_layers=False))

    def features(scales, batch):
        boxes = {k: Packed(x.form, x.parts | {"scale": scales[k]}) for k, x in held.items()}
        params = unflatten(scales | boxes, scan_layers=False)["encoder"]
        arrays = (batch[name] for name in ("tokens", "segments", "attention_mask"))
        return module.apply({"params": params}, *arrays)[0]

    assert analyse(features, scales, BATCHES[0]).is_invariant()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 5}, "--bits=5 must be one of 2, 3, 4, 8"),
        ({"bits": 4, "tables": 7}, "--tables=7 must be one of 0, 2, 3, 4, 8"),
        ({"bits": 4, "method": "gptq"}, "--method=gptq must be one of rtn, signround"),
        ({"bits": 4, "group": 0}, "--group=0 must be at least 2, or -1"),
        ({"bits": 4, "steps": 0}, "--steps=0 must be at least 1"),
        (
            {"bits": 4, "group": 8},
            "--group=8 does not divide the 12 inputs of encoder/layers/0/ffn/",
        ),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(params, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(params, **settings)
