"""The assembled optimizer on a real model against the closed form, optax.chain and optax.lamb."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sibert_jax.train import build, sharding
from sibert_jax.train.session import Session

ETA, LAMBDA = 0.5, 0.02


@pytest.fixture
def session(config):
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    return Session(run, mesh, *build.load_task(run, progress=print))


def one_step(session, config, clip_factor, gradient_scale=1.0):
    """Parameters, gradients and updates (float64 trees) of the first step."""
    config.optim.clip_factor = clip_factor
    config.optim.schedule = config.optim.head.schedule = "constant"
    run = build.run_config(config)
    recipe = build.build_recipe(run, ETA, LAMBDA, session.mask)
    batch = session.batch(0)
    params = jax.jit(session.task.init)(jax.random.key(0), batch)
    grads = gradient(session, params, batch)
    grads = jax.tree.map(lambda g: g * gradient_scale, grads)
    updates, _ = jax.jit(recipe.tx.update)(grads, recipe.tx.init(params), params)
    return params, grads, updates


def gradient(session, params, batch):
    return jax.jit(jax.grad(lambda p: session.task.sums(p, batch)["mlm_loss"]))(params)


def norm64(tree) -> float:
    return float(np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in jax.tree.leaves(tree))))


@pytest.mark.parametrize(("gradient_scale", "clips"), [(1e-3, False), (1e3, True)])
def test_a_step_on_the_encoder_is_the_closed_form(session, config, gradient_scale, clips):
    params, grads, updates = one_step(session, config, 4.0, gradient_scale)
    x_norm, g_norm = norm64(params["encoder"]), norm64(grads["encoder"])
    factor = np.sqrt(2 * 4.0 * LAMBDA / ETA) * x_norm / g_norm
    assert (factor < 1) == clips

    def close(x, g, u):
        x, g = np.float64(x), np.float64(g)
        wanted = (1 - ETA * LAMBDA) * x - ETA * min(1.0, factor) * g
        np.testing.assert_allclose(x + np.float64(u), wanted, rtol=1e-5, atol=1e-7)

    jax.tree.map(close, params["encoder"], grads["encoder"], updates["encoder"])


def test_the_head_gets_lamb_bit_for_bit(session, config):
    params, grads, updates = one_step(session, config, 4.0)
    c = config.optim.head
    is_matrix = {
        "transform": {"kernel": True, "bias": False},
        "transform_norm": {"scale": False, "bias": False},
        "output": True,
        "output_bias": False,
    }
    lamb = optax.lamb(
        c.learning_rate, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=is_matrix
    )
    head = params["head"]
    expected, _ = jax.jit(lamb.update)(grads["head"], lamb.init(head), head)
    jax.tree.map(np.testing.assert_array_equal, updates["head"], expected)


def test_without_a_clip_the_encoder_gets_decayed_sgd_bit_for_bit(session, config):
    params, grads, updates = one_step(session, config, float("inf"))
    plain = optax.chain(optax.add_decayed_weights(LAMBDA), optax.sgd(ETA))
    encoder = params["encoder"]
    expected, _ = jax.jit(plain.update)(grads["encoder"], plain.init(encoder), encoder)
    jax.tree.map(np.testing.assert_array_equal, updates["encoder"], expected)


def test_calibration_makes_the_first_step_turn_by_the_equilibrium_angle(config, session):
    params = session._fresh_params()
    learning_rate, weight_decay = session._peak_rates(params)
    batch = session.batch(0)
    grads = gradient(session, params, batch)
    ratio = norm64(grads["encoder"]) / float(session.task.totals(batch)["mlm_loss"])
    ratio /= norm64(params["encoder"])
    eta_lambda = config.optim.eta_lambda
    assert learning_rate * weight_decay == pytest.approx(eta_lambda, rel=1e-6)
    assert learning_rate * ratio == pytest.approx(np.sqrt(2 * eta_lambda), rel=1e-4)


def test_microbatches_change_nothing_but_rounding(config, session):
    from sibert_jax.train.step import Step

    recipe = build.build_recipe(session.run, ETA, LAMBDA, session.mask)
    params, batch = session._fresh_params(), session.batch(0)
    # Very different numbers of masked tokens in the two halves.
    weights = np.array(batch["masked_weights"])
    weights[1::2, 1:] = 0
    batch["masked_weights"] = jnp.asarray(weights)
    whole, parts = (
        jax.jit(
            Step(session.task, recipe, session.mask, count, 1, None, session.bad_steps).gradient
        )(params, batch, None)
        for count in (1, 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), whole, parts)
