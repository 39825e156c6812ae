import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import partition_by_invariance, scale_invariant_sgd

from .conftest import assert_close, first_update

PARAMS = {"encoder": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "head": {"w": jnp.full((3,), 50.0)}}
GRADS = jax.tree.map(
    lambda x: 7.0 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), PARAMS
)


def by_path(tree):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "encoder", tree)


@pytest.mark.parametrize("mask", [{"encoder": True, "head": False}, by_path])
def test_each_side_equals_its_transform_alone(mask):
    encoder_tx, head_tx = scale_invariant_sgd(0.1, 0.2), optax.lamb(0.01)
    tx = partition_by_invariance(encoder_tx, head_tx, mask)
    with jax.numpy_dtype_promotion("standard"):  # optax.lamb raises a float to an int32 power
        updates, state = first_update(tx, GRADS, PARAMS)
        for side, alone in (("encoder", encoder_tx), ("head", head_tx)):
            wanted, _ = first_update(alone, GRADS[side], PARAMS[side])
            assert_close(updates[side], wanted)
    np.testing.assert_allclose(state.encoder.param_norm, 3.0, rtol=1e-6)
    marked = optax.tree.map_params(tx, lambda x: -x - 1, tx.init(PARAMS))
    np.testing.assert_array_equal(optax.tree.get(marked.head, "mu")["head"]["w"], [-1.0] * 3)
    assert marked.encoder.count == 0
