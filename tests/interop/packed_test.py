"""Packed matrices as parameters: the same outputs, in the bytes of the file, a layer at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.interop.packed import Packed, pack_all
from sibert_jax.interop.per_layer import flatten, unflatten
from sibert_jax.interop.quantized import dequantized
from sibert_jax.model import Encoder
from sibert_jax.quantize import Settings
from sibert_jax.quantize.matrices import forms
from sibert_jax.quantize.rounding import quantized
from tests.builders import model_config, random_params

CFG = model_config(arch="sibert_sandwich", vocab_size=40, width=32, ffn_width=96, max_len=8)
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype(np.int32)
ARRAYS = (TOKENS, 0 * TOKENS, TOKENS > 3)


def rounded(cfg, bits: int, symmetric: bool = False) -> dict:
    """All parameters of an encoder, matrices and tables in integers."""
    params = random_params(Encoder(cfg).init, *ARRAYS, std=0.3)["params"]
    flat = flatten({"encoder": params}, scan_layers=cfg.scan_layers)
    settings = Settings(bits=bits, group=16, tables=bits, symmetric=symmetric)
    return flat | {k: quantized(flat[k], form) for k, form in forms(flat, settings).items()}


def features(cfg):
    return jax.jit(lambda params: Encoder(cfg).apply({"params": params["encoder"]}, *ARRAYS)[0])


@pytest.mark.parametrize(("bits", "symmetric", "scan_layers"), [(3, False, True), (4, True, False)])
def test_outputs_are_those_of_the_floats(bits, symmetric, scan_layers):
    cfg = dataclasses.replace(CFG, scan_layers=scan_layers)
    tensors = rounded(cfg, bits, symmetric)
    floats = unflatten(dequantized(tensors), scan_layers=scan_layers)
    params = unflatten(pack_all(tensors), scan_layers=scan_layers)
    np.testing.assert_allclose(features(cfg)(params), features(cfg)(floats), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_matrix_is_unpacked_to_the_bit(bits, symmetric):
    form = forms({"a/kernel": np.ones((6, 5))}, Settings(bits=4, group=3))["a/kernel"]
    matrix = quantized(
        np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32),
        form._replace(bits=bits, symmetric=symmetric),
    )
    found = Packed(matrix.form, jax.tree.map(jnp.asarray, matrix.parts())).unbox()
    np.testing.assert_array_equal(found, matrix.float32())


def test_only_one_layer_is_in_floats_at_a_time():
    """Held are the bytes of the file; the program needs no more where there are more layers."""
    temporary = []
    for depth in (2, 8):
        cfg = dataclasses.replace(CFG, depth=depth, scan_layers=True)
        tensors = rounded(cfg, 4)
        params = unflatten(pack_all(tensors), scan_layers=True)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        assert held == sum(tensor.nbytes for tensor in tensors.values())
        program = features(cfg).lower(params).compile()
        temporary.append(program.memory_analysis().temp_size_in_bytes)
    layer = [x for k, x in dequantized(tensors).items() if k.startswith("encoder/layers/0/")]
    assert temporary[1] - temporary[0] < sum(leaf.nbytes for leaf in layer)
