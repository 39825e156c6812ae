"""SGD-SaI against the authors' optimizer as a loop in float64; its signal-to-noise ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.optim import gradient_snr, sgd_sai

from .conftest import assert_close, assert_equal, first_update, random_tree

SHAPES = (("w", (2, 3, 4)), ("scalar", ()), ("one", (1, 1)), ("silent", (3,)))


def tree(seed):
    return random_tree(seed, shapes=SHAPES)


def published_snr(g, ddof, eps=1e-8):
    """Return ‖g‖/(std + ε) in float64; √N where the published one is 0 or about 1e8."""
    g = np.float64(g)
    if g.size == 1 or not g.any():
        return np.sqrt(g.size)
    return np.linalg.norm(g.ravel()) / (np.std(g, ddof=ddof) + eps)


def published_rule(params, grads_by_step, eta, lam, mu, scaling):
    """Run the authors' optimizer as a loop over steps and tensors, in float64."""
    first = grads_by_step[0]
    if scaling == "sqrt_size":
        factor = {k: np.sqrt(g.size) for k, g in first.items()}
    else:
        factor = {k: published_snr(g, ddof=int(scaling == "snr")) for k, g in first.items()}
    if scaling == "snr_max_normalized":
        factor = {k: a / max(factor.values()) for k, a in factor.items()}
    params, average = {k: np.float64(x) for k, x in params.items()}, {}
    for t, grads in enumerate(grads_by_step):
        for k, g in grads.items():
            average[k] = mu * average[k] + (1 - mu) * g if k in average else np.float64(g)
            params[k] = params[k] * (1 - eta[t] * lam[t])
            params[k] = params[k] - eta[t] * factor[k] * average[k]
    return params


@pytest.mark.parametrize(
    ("mu", "scaling"),
    [(0.9, "snr"), (0.0, "snr"), (0.9, "snr_max_normalized"), (0.9, "sqrt_size")],
)
def test_equals_the_published_rule_over_many_steps(mu, scaling):
    """With momentum and both schedules; a scalar, a (1, 1) and a tensor silent at first too."""
    etas, lams = np.geomspace(0.02, 0.01, 12), np.linspace(0.2, 0.1, 12)
    eta, lam = (jnp.asarray(x, jnp.float32) for x in (etas, lams))
    tx = sgd_sai(lambda t: eta[t], mu, lambda t: lam[t], scaling=scaling)
    grads = [tree(100 + t) for t in range(12)]
    grads[0]["silent"] = jnp.zeros(3)
    params = tree(0)
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = published_rule(tree(0), grads, etas, lams, mu, scaling)
    assert_close(params, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("scale", [1e-36, 1.0, 1e37])
def test_ratio_does_not_depend_on_the_scale(scale, ddof):
    g = np.random.default_rng(0).normal(size=64) + 0.3
    found = gradient_snr(jnp.asarray(scale * g, jnp.float32), ddof=ddof)
    np.testing.assert_allclose(found, published_snr(g, ddof), rtol=1e-5)
    if ddof:  # a² = (N−1) + N·ḡ²/s², hence a ≥ √(N−1)
        np.testing.assert_allclose(found**2, 63 + 64 * g.mean() ** 2 / g.var(ddof=1), rtol=1e-4)
    equal_entries = gradient_snr(jnp.full(4, scale, jnp.float32), ddof=ddof)
    assert 1e6 < equal_entries <= 2.1e8 or scale < 1e-30


def test_factors_are_measured_once_and_again_only_when_asked():
    params, tx = tree(0), sgd_sai()
    update = jax.jit(tx.update)
    _, first = update(tree(1), tx.init(params), params)
    _, later = update(tree(2), first, params)
    assert_equal(later.scale, first.scale)
    asked = optax.tree.set(later, is_measured=jnp.array(False))
    _, again = update(tree(3), asked, params)
    assert_close(again.scale, {k: gradient_snr(g) for k, g in tree(3).items()})
    assert again.scale["w"] != first.scale["w"]
    assert again.count == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_first_gradient_that_is_not_finite_spoils_its_tensor(value):
    """Unless the step is skipped."""
    params, good = tree(0), tree(2)
    bad = good | {"w": good["w"].at[0, 0].set(value)}
    tx = sgd_sai()
    _, state = first_update(tx, bad, params)
    assert [k for k, a in state.scale.items() if np.isnan(a)] == ["w"]
    skipping = optax.apply_if_finite(tx, max_consecutive_errors=3)
    updates, state = first_update(skipping, bad, params)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    assert not state.inner_state.is_measured
    _, state = skipping.update(good, state, params)
    np.testing.assert_allclose(state.inner_state.scale["w"], gradient_snr(good["w"]), rtol=1e-6)
