"""A step is computed twice, and a device that computes it in two ways is found."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.errors import FaultError
from sibert_jax.runtime.replay import different_leaves, step_twice


@flax.struct.dataclass
class State:
    """Of a step of gradient descent."""

    step: jax.Array
    params: dict[str, jax.Array]


START = State(jnp.int32(0), {"a": jnp.zeros(3), "b": jnp.zeros(())})
BATCH = jnp.float32([0.1, 0.2, 0.3])


def with_one_bit_flipped(grad):
    """The lowest bit of the first element, another way."""
    bits = jax.lax.bitcast_convert_type(grad, jnp.uint32)
    return jax.lax.bitcast_convert_type(bits.at[0].set(bits[0] ^ jnp.uint32(1)), jnp.float32)


def make_step(device=lambda grad: grad):
    """One step of gradient descent, with what a device makes of the gradient of "a"."""

    def loss(params, batch):
        return jnp.sum(jnp.exp(params["a"] * batch)) + params["b"]

    @jax.jit
    def step(state, batch):
        value, grads = jax.value_and_grad(loss)(state.params, batch)
        grads["a"] = device(grads["a"])
        return State(state.step + 1, jax.tree.map(jnp.subtract, state.params, grads)), value

    return step


def test_a_sound_step_is_accepted():
    step = make_step()
    found, wanted = step_twice(step, START, BATCH), step(START, BATCH)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("first_is_wrong", [True, False])
def test_a_flipped_bit_of_a_gradient_is_found(first_is_wrong):
    left = [make_step(), make_step(with_one_bit_flipped)]
    if not first_is_wrong:
        left.reverse()
    with pytest.raises(FaultError, match=r"step 1 computed twice .* 1 of 3 leaves \(params/a\)"):
        step_twice(lambda state, batch: left.pop()(state, batch), START, BATCH)


def test_bits_are_compared_not_values():
    a = {"x": jnp.float32([0.0, np.nan]), "n": jnp.int32(3), "b": jnp.bfloat16(1)}
    assert different_leaves(a, a) == []
    assert different_leaves(a, a | {"x": -a["x"]}) == ["x"]
    assert different_leaves(a, a | {"n": jnp.int32(4), "b": jnp.bfloat16(2)}) == ["b", "n"]
