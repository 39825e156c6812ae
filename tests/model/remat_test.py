"""Rematerialization changes memory and work, not the gradient."""

import dataclasses

import jax
import jax.numpy as jnp

from sibert_jax.model import Encoder


def test_remat_computes_products_again(cfg, inputs):
    def products(**changes):
        encoder = Encoder(dataclasses.replace(cfg, **changes))
        params = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)
        gradient = jax.grad(lambda params: jnp.sum(encoder.apply(params, *inputs)[0]))
        return str(jax.make_jaxpr(gradient)(params)).count("dot_general")

    all_again = products(remat=True)
    batched_again = products(remat=True, remat_policy="dots_with_no_batch_dims_saveable")
    assert all_again > batched_again > products(remat=True, remat_policy="dots_saveable")
    assert products(remat=False) <= products(remat=True, remat_policy="dots_saveable")
