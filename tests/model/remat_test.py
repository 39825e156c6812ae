"""What the backward pass recomputes changes memory and work, not the gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.model import Encoder


def test_the_more_is_kept_the_fewer_flops_and_the_gradient_is_the_same(cfg, inputs):
    cfg = dataclasses.replace(cfg, depth=3)
    params = Encoder(cfg).init(jax.random.key(0), *inputs)["params"]
    gradients, flops, memory = [], [], []
    for changes in (
        {"remat": False},
        {"remat": True, "remat_policy": "dots_saveable"},
        {"remat": True, "remat_policy": "dots_with_no_batch_dims_saveable"},
        {"remat": True},
    ):
        encoder = Encoder(dataclasses.replace(cfg, **changes))

        def loss(params, encoder=encoder):
            return jnp.sum(jnp.sin(encoder.apply({"params": params}, *inputs)[0]))

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
