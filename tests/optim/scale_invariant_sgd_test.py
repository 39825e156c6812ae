import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.optim import ROWS, make_schedule, scale_invariant_sgd

SHAPES = {"w": (4, 6), "b": (6,)}
few = settings(max_examples=15)
seeds = st.integers(0, 2**20)


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}


def step(tx, grads, params):
    updates, state = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates), state


def numpy_norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in jax.tree.leaves(tree)))


@few
@given(seeds, st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.sampled_from([0.1, 1.0, 30.0]))
def test_a_step_equals_algorithm_1(seed, eta, lam, scale):
    params, grads = random_tree(seed), random_tree(seed + 1, scale)
    after, state = step(scale_invariant_sgd(eta, lam, 4.0), grads, params)
    bound = np.sqrt(2 * 4.0 * lam / eta)
    m = min(1.0, bound * numpy_norm(params) / numpy_norm(grads))
    for k in SHAPES:
        x, g = np.float64(params[k]), np.float64(grads[k])
        # Where decay or gradient take nearly all of x away, rounding is of the terms' size.
        rounding = 1e-6 * (np.abs(x) + eta * m * np.abs(g))
        assert np.all(np.abs(after[k] - ((1 - eta * lam) * x - eta * m * g)) <= rounding)
    np.testing.assert_allclose(state.max_ratio, bound, rtol=1e-6)


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("jit", [False, True])
def test_without_clip_it_is_decay_then_sgd_bit_for_bit(scheduled, weight_decay, jit):
    eta = make_schedule("linear", peak_value=0.7, num_steps=9, warmup_steps=2) if scheduled else 0.7
    ours = scale_invariant_sgd(eta, weight_decay, clip_factor=None)
    theirs = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(eta))
    trajectories = []
    for tx in (ours, theirs):
        params, state = random_tree(0), tx.init(random_tree(0))
        update = jax.jit(tx.update) if jit else tx.update
        for t in range(5):
            updates, state = update(random_tree(10 + t, 100.0), state, params)
            params = optax.apply_updates(params, updates)
        trajectories.append(params)
    jax.tree.map(np.testing.assert_array_equal, *trajectories)


@few
@given(
    seeds,
    st.integers(-10, 10),
    st.sampled_from([0.01, 1.0, 100.0]),
    st.sampled_from([None, "labels", "rows"]),
)
def test_rescaling_by_powers_of_two_rescales_the_trajectory_bit_for_bit(seed, i, scale, kind):
    """Lemma 2.4: (cx, g/c, c²η, λ/c²) gives c times the parameters."""
    c = 2.0**i
    blocks = {None: None, "labels": {"w": "w", "b": "b"}, "rows": {"w": ROWS, "b": "b"}}[kind]
    eta, lam = np.float32(0.013), np.float32(0.21)

    def train(c):
        tx = scale_invariant_sgd(float(c**2 * eta), float(lam / c**2), 4.0, blocks=blocks)
        params = jax.tree.map(lambda x: c * x, random_tree(seed))
        state = tx.init(params)
        for t in range(3):
            grads = jax.tree.map(lambda g: g / c, random_tree(seed + t, scale))
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    (params, state), (scaled, scaled_state) = train(1.0), train(c)
    for k in SHAPES:
        np.testing.assert_array_equal(scaled[k], c * np.asarray(params[k]))
    jax.tree.map(np.testing.assert_array_equal, state.clipped_steps, scaled_state.clipped_steps)


def test_the_threshold_follows_the_schedules():
    eta = make_schedule("piecewise", peak_value=0.1, num_steps=10)
    tx = scale_invariant_sgd(eta, lambda count: 0.2, clip_factor=2.0)
    params, state = random_tree(0), None
    state = tx.init(params)
    for t in range(10):
        _, state = tx.update(random_tree(1), state, params)
        np.testing.assert_allclose(
            state.max_ratio, np.sqrt(2 * 2.0 * 0.2 / float(eta(t))), rtol=1e-6
        )
    assert state.count == 10


def test_a_learning_rate_of_zero_gives_a_zero_update_and_no_clip():
    updates, state = scale_invariant_sgd(0.0, 0.1).update(
        random_tree(1, 1e3), scale_invariant_sgd(0.0, 0.1).init(random_tree(0)), random_tree(0)
    )
    assert numpy_norm(updates) == 0
    assert not state.clipped


def test_without_decay_there_is_no_clip():
    params, grads = random_tree(0), random_tree(1, 1e3)
    after, state = step(scale_invariant_sgd(0.1, 0.0), grads, params)
    reference, _ = step(optax.sgd(0.1), grads, params)
    jax.tree.map(np.testing.assert_array_equal, after, reference)
    assert not state.clipped


def test_a_zero_gradient_leaves_the_decay():
    params = random_tree(0)
    after, _ = step(scale_invariant_sgd(0.5, 0.25), jax.tree.map(jnp.zeros_like, params), params)
    for k in SHAPES:
        np.testing.assert_allclose(after[k], 0.875 * params[k], rtol=1e-6)


def test_bfloat16_leaves_stay_bfloat16_with_schedules():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_tree(0))
    tx = scale_invariant_sgd(lambda t: jnp.float32(0.1), lambda t: jnp.float32(0.1))
    after, _ = step(tx, params, params)
    assert {x.dtype for x in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-0.1, 0.1), "learning_rate"),
        ((0.1, -0.1), "weight_decay"),
        ((0.1, 0.1, 1.0), "clip_factor"),
        ((0.1, 0.1, -4.0), "clip_factor"),
        ((float("nan"), 0.1), "learning_rate"),
        (("0.1", 0.1), "learning_rate"),
    ],
)
def test_bad_hyperparameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        scale_invariant_sgd(*arguments)


def test_missing_params_raise_value_error():
    tx = scale_invariant_sgd(0.1, 0.1)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        tx.update(random_tree(0), tx.init(random_tree(0)))
