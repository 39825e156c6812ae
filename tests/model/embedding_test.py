"""Embeddings against their tables, and their gradient in bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.model.attention import Tokens
from sibert_jax.model.encoder import Embedding
from tests.builders import random_params

WHOLE = Tokens(jnp.ones((1, 1, 1, 1), bool), jnp.arange(16)[None])  # one text a row, from its start


def test_gradient_of_a_frequent_token_is_summed_in_float32(cfg):
    """In bfloat16 a sum of ones stops at 256; a CPU hides this, so the dtype is looked at."""
    embedding = Embedding(dataclasses.replace(cfg, positions="learned", dtype="bfloat16"))
    tokens_BL = jnp.zeros((64, 16), jnp.int32)
    params = random_params(embedding.init, tokens_BL, tokens_BL, WHOLE)

    def total(params):
        x_BLD = embedding.apply(params, tokens_BL, tokens_BL, WHOLE)
        assert x_BLD.dtype == jnp.bfloat16
        return jnp.sum(x_BLD, dtype=jnp.float32)

    jaxpr = jax.make_jaxpr(jax.grad(total))(params)
    sums = [eqn.outvars[0].aval for eqn in jaxpr.eqns if eqn.primitive.name == "scatter-add"]
    assert [(aval.shape, aval.dtype) for aval in sums] == [((60, 32), jnp.float32)]
    assert (jax.jit(jax.grad(total))(params)["params"]["token"][0] == 64 * 16).all()


@pytest.mark.parametrize("num_segments", [1, 3])
def test_token_has_the_row_of_its_segment(cfg, num_segments):
    embedding = Embedding(dataclasses.replace(cfg, positions="learned", num_segments=num_segments))
    tokens, segments = np.array([[4, 5, 6]]), np.arange(3)[None] % num_segments
    params = random_params(embedding.init, tokens, segments, WHOLE)
    tables = jax.tree.map(np.asarray, params["params"])
    wanted = tables["token"][tokens] + tables["position"][None, :3]
    assert ("segment" in tables) == (num_segments > 1)
    if num_segments > 1:
        wanted += tables["segment"][segments]
    found = jax.jit(embedding.apply)(params, tokens, segments, WHOLE)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
