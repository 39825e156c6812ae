"""Rematerialization changes memory and work, not the gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model import Encoder
from tests.builders import random_params


@pytest.mark.slow
def test_more_kept_means_fewer_flops_and_the_same_gradient(cfg, inputs):
    cfg = dataclasses.replace(cfg, depth=3)
    params = random_params(Encoder(cfg).init, *inputs)
    gradients, flops, memory = [], [], []
    for changes in (
        {"remat": False},
        {"remat": True, "remat_policy": "dots_saveable"},
        {"remat": True, "remat_policy": "dots_with_no_batch_dims_saveable"},
        {"remat": True},
    ):
        encoder = Encoder(dataclasses.replace(cfg, **changes))

        def loss(params, encoder=encoder):
            return jnp.sum(jnp.sin(encoder.apply(params, *inputs)[0]))

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        gradients.append(compiled(params))
        flops.append(compiled.cost_analysis()["flops"])
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    assert flops == sorted(flops)
    assert len(set(flops)) == 4
    assert memory[3] < memory[2] < memory[0]
    for found in gradients[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, gradients[0]
        )


@pytest.mark.parametrize("remat", [False, True])
def test_remat_computes_products_again(cfg, inputs, remat):
    encoder = Encoder(dataclasses.replace(cfg, remat=remat))
    params = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)

    def products(fn):
        return str(jax.make_jaxpr(fn)(params)).count("dot_general")

    def loss(params):
        return jnp.sum(encoder.apply(params, *inputs)[0])

    # A product has two gradients; remat adds the product itself.
    again = products(jax.grad(loss)) - 3 * products(loss)
    assert again > 0 if remat else again <= 0
