import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.optim import gradient_snr, make_schedule, sgd_sai

SHAPES = {"w": (6, 8), "b": (5,), "k": (2, 3, 4), "scalar": (), "one": (1, 1), "silent": (3,)}


def random_tree(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: np.asarray(rng.normal(size=s)) for k, s in shapes.items()}


def as_float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def published_snr(g, ddof, eps=1e-8):
    """Return ‖g‖/(std + ε) in float64; √N where the published one is 0 or about 1e8."""
    if g.size == 1 or not g.any():
        return np.sqrt(g.size)
    return np.linalg.norm(g.ravel()) / (np.std(g, ddof=ddof) + eps)


def published_rule(params, grads_by_step, eta, lam, mu, scaling):
    """Run the authors' optimizer as a loop over steps and tensors, in float64."""
    first = grads_by_step[0]
    if scaling == "snr":
        factor = {k: published_snr(g, ddof=1) for k, g in first.items()}
    elif scaling == "snr_max_normalised":
        factor = {k: published_snr(g, ddof=0) for k, g in first.items()}
        factor = {k: a / max(factor.values()) for k, a in factor.items()}
    else:
        factor = {k: np.sqrt(g.size) for k, g in first.items()}
    average = {}
    for t, grads in enumerate(grads_by_step):
        for k, g in grads.items():
            if k in average:
                average[k] = mu * average[k] + (1 - mu) * g
            else:
                average[k] = g
            params[k] = params[k] * (1 - eta[t] * lam[t])
            params[k] = params[k] - eta[t] * factor[k] * average[k]
    return params


@pytest.mark.parametrize(
    ("mu", "scaling"),
    [(0.9, "snr"), (0.0, "snr"), (0.9, "snr_max_normalised"), (0.9, "sqrt_size")],
)
def test_equals_the_published_rule_over_many_steps(mu, scaling):
    """With momentum and both schedules; a scalar, a (1, 1) and a tensor silent at first too."""
    eta = make_schedule("cosine", peak_value=0.02, num_steps=40, warmup_steps=3)
    lam = make_schedule("linear", peak_value=0.2, num_steps=40, end_value=0.1)
    tx = sgd_sai(eta, mu, lam, scaling=scaling)
    grads = [random_tree(100 + t) for t in range(40)]
    grads[0]["silent"] = np.zeros(3)
    params = as_float32(random_tree(0))
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(as_float32(g), state, params)
        params = optax.apply_updates(params, updates)
    etas, lams = (np.float64(jax.vmap(f)(jnp.arange(40))) for f in (eta, lam))
    expected = published_rule(random_tree(0), grads, etas, lams, mu, scaling)
    for k in SHAPES:
        np.testing.assert_allclose(params[k], expected[k], rtol=2e-5, atol=2e-5)


@settings(max_examples=40)
@given(
    st.integers(0, 2**20),
    st.sampled_from([2, 5, 30, 300]),
    st.floats(-3, 3),
    st.sampled_from([1e-2, 1, 10]),
)
def test_the_ratio_is_a_matter_of_size_and_mean(seed, size, mean, spread):
    """a² = (N−1) + N·ḡ²/s², hence a ≥ √(N−1)."""
    g = mean + spread * np.random.default_rng(seed).normal(size=size)
    a = float(jax.jit(gradient_snr, static_argnums=1)(jnp.asarray(g, jnp.float32), 1e-30))
    expected = (size - 1) + size * g.mean() ** 2 / g.var(ddof=1)
    np.testing.assert_allclose(a**2, expected, rtol=1e-3)
    assert a >= np.sqrt(size - 1) * (1 - 1e-5)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("scale", [1e-36, 1e-22, 1e-10, 1e-6, 1.0, 1e10, 1e37])
def test_the_ratio_does_not_depend_on_the_scale(scale, ddof):
    g = np.random.default_rng(0).normal(size=64) + 0.3
    found = gradient_snr(jnp.asarray(scale * g, jnp.float32), ddof=ddof)
    np.testing.assert_allclose(found, published_snr(g, ddof), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_equal_entries_have_a_large_and_finite_ratio(scale):
    assert 1e6 < gradient_snr(jnp.full(4, scale, jnp.float32)) <= 2.1e8


def test_sqrt_size_needs_no_gradient():
    params = as_float32(random_tree(0))
    tx = sgd_sai(scaling="sqrt_size")
    _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for k, shape in SHAPES.items():
        np.testing.assert_allclose(state.scale[k], np.sqrt(np.prod(shape)), rtol=1e-6)


@pytest.mark.parametrize("scaling", ["snr", "snr_max_normalised", "sqrt_size"])
def test_tensors_without_spread_get_the_square_root_of_their_size(scaling):
    params = {"scalar": jnp.float32(1.0), "one": jnp.ones((1, 1)), "zero": jnp.ones(9)}
    grads = {"scalar": jnp.float32(3.0), "one": jnp.full((1, 1), -2.0), "zero": jnp.zeros(9)}
    tx = sgd_sai(scaling=scaling)
    _, state = tx.update(grads, tx.init(params), params)
    largest = 3.0 if scaling == "snr_max_normalised" else 1.0
    for k, a in {"scalar": 1.0, "one": 1.0, "zero": 3.0}.items():
        np.testing.assert_allclose(state.scale[k], a / largest, rtol=1e-6)


def test_factors_are_measured_once_and_again_only_when_asked():
    params = as_float32(random_tree(0))
    tx = sgd_sai()
    update = jax.jit(tx.update)
    _, first = update(as_float32(random_tree(1)), tx.init(params), params)
    _, later = update(as_float32(random_tree(2)), first, params)
    jax.tree.map(np.testing.assert_array_equal, later.scale, first.scale)
    asked = optax.tree.set(later, is_measured=jnp.array(False))
    _, again = update(as_float32(random_tree(3)), asked, params)
    expected = {k: gradient_snr(g) for k, g in as_float32(random_tree(3)).items()}
    for k in SHAPES:
        np.testing.assert_allclose(again.scale[k], expected[k], rtol=1e-6)
        assert again.scale[k] != first.scale[k] or params[k].size == 1
    assert again.count == 3


def test_a_learning_rate_of_zero_moves_nothing_but_the_average():
    params, grads = as_float32(random_tree(0)), as_float32(random_tree(1))
    tx = sgd_sai(0.0)
    updates, state = tx.update(grads, tx.init(params), params)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    jax.tree.map(np.testing.assert_array_equal, state.momentum, grads)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_first_gradient_that_is_not_finite_spoils_its_tensor_unless_the_step_is_skipped(value):
    params, good = as_float32(random_tree(0)), as_float32(random_tree(2))
    bad = good | {"w": good["w"].at[0, 0].set(value)}
    tx = sgd_sai()
    _, state = tx.update(bad, tx.init(params), params)
    assert np.isnan(state.scale["w"])
    assert all(np.isfinite(a) for k, a in state.scale.items() if k != "w")
    skipping = optax.apply_if_finite(tx, max_consecutive_errors=3)
    updates, state = skipping.update(bad, skipping.init(params), params)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    assert not state.inner_state.is_measured
    _, state = skipping.update(good, state, params)
    np.testing.assert_allclose(state.inner_state.scale["w"], gradient_snr(good["w"]), rtol=1e-6)


def test_decay_is_not_scaled_by_the_factor():
    params = as_float32(random_tree(0))
    tx = sgd_sai(0.5, 0.9, 0.2)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for k in SHAPES:
        np.testing.assert_allclose(updates[k], -0.1 * params[k], rtol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"eps": 0.0}, "eps"),
        ({"scaling": "paper"}, "scaling must be one of snr, snr_max_normalised, sqrt_size"),
    ],
)
def test_bad_arguments_are_named(keywords, name):
    with pytest.raises(ValueError, match=name):
        sgd_sai(**keywords)
