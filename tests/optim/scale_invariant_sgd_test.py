"""Scale-invariant SGD against Algorithm 1 in float64, and Lemma 2.4 bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import ROWS, make_schedule, scale_invariant_sgd

from .conftest import assert_close, assert_equal, first_update, numpy_norm, random_tree, trained


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("eta", "lam"), [(1e-3, 0.9), (0.5, 1e-3), (1.0, 1.0)])
def test_step_equals_algorithm_1(eta, lam, scale):
    params, grads = random_tree(0), random_tree(1, scale)
    updates, state = first_update(scale_invariant_sgd(eta, lam, 4.0), grads, params)
    bound = np.sqrt(2 * 4.0 * lam / eta)
    m = min(1.0, bound * numpy_norm(params) / numpy_norm(grads))
    for k in params:
        x, g = np.float64(params[k]), np.float64(grads[k])
        wanted = -eta * lam * x - eta * m * g
        np.testing.assert_allclose(updates[k], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(state.max_ratio, bound, rtol=1e-6)


@pytest.mark.parametrize(
    "eta", [0.7, make_schedule("linear", peak_value=0.7, num_steps=9, warmup_steps=2)]
)
def test_without_clip_it_is_decay_then_sgd_bit_for_bit(eta):
    ours = scale_invariant_sgd(eta, 0.3, clip_factor=None)
    theirs = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(eta))
    with jax.disable_jit():  # compiled, η(g + λx) may be rounded once or twice
        found, wanted = (
            trained(tx, random_tree(0), range(10, 15), 100.0)[0] for tx in (ours, theirs)
        )
    assert_equal(found, wanted)


@pytest.mark.parametrize(("c", "scale"), [(2.0**-10, 100.0), (8.0, 0.01)])
@pytest.mark.parametrize("blocks", [None, {"w": "w", "b": "b"}, {"w": ROWS, "b": "b"}])
def test_rescaling_by_powers_of_two_changes_no_bit(c, scale, blocks):
    """Lemma 2.4: (cx, g/c, c²η, λ/c²) gives c times the parameters."""
    eta, lam = np.float32(0.013), np.float32(0.21)

    def run(c):
        tx = scale_invariant_sgd(float(c**2 * eta), float(lam / c**2), 4.0, blocks=blocks)
        return trained(tx, random_tree(0, c), range(1, 4), scale / c)

    (params, state), (scaled, scaled_state) = run(1.0), run(c)
    assert_equal(scaled, jax.tree.map(lambda x: c * x, params))
    assert_equal(state.clipped_steps, scaled_state.clipped_steps)


def test_threshold_follows_the_schedules():
    eta = jnp.array([0.1, 0.05, 0.025])
    tx = scale_invariant_sgd(lambda t: eta[t], lambda count: 0.2, clip_factor=2.0)
    _, state = trained(tx, random_tree(0), range(3))
    np.testing.assert_allclose(state.max_ratio, np.sqrt(2 * 2.0 * 0.2 / 0.025), rtol=1e-6)


@pytest.mark.parametrize(
    ("eta", "lam", "scale", "of_params", "of_grads"),
    [(0.0, 0.1, 1e3, 0.0, 0.0), (0.1, 0.0, 1e3, 0.0, -0.1), (0.5, 0.25, 0.0, -0.125, 0.0)],
)
def test_without_equilibrium_nothing_is_clipped(eta, lam, scale, of_params, of_grads):
    params, grads = random_tree(0), random_tree(1, scale)
    updates, state = first_update(scale_invariant_sgd(eta, lam), grads, params)
    wanted = jax.tree.map(lambda x, g: of_params * x + of_grads * g, params, grads)
    assert_close(updates, wanted)
    assert not state.clipped
    assert jnp.isfinite(state.param_norm)
