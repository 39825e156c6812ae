"""Lemma 2.4 of Li et al. (arXiv 2202.00980) on the real model, text and step, bit for bit.

From c·x₀ with η·c² and λ/c² every direction, loss and clip decision is the same; so is everything
with the loss times c, η/c and c·λ. In float32 this is exact for powers of two.
"""

import jax
import numpy as np
import pytest

from tests.train.started import Started, assert_trains_alike_at_any_scale

ETA = 0.25
SAME = ("loss", "mlm_loss", "clipped", "dead_attention_rows")


def train(config, num_steps, *, c=1.0, loss_scale=1.0, weight_decay=2.0**-6, head="lamb"):
    """The parameters in the end, and what each step measured."""
    config.train.num_steps, config.train.log_every_steps = num_steps, 1
    config.init_scale = c
    config.task.loss_scale = loss_scale
    config.optim.eta_lambda = 0.0
    config.optim.learning_rate = ETA * c**2 / loss_scale
    config.optim.weight_decay = weight_decay / c**2 * loss_scale
    config.optim.head.name = head
    if head == "sgd":
        config.optim.head.weight_decay = 0.0
        config.optim.head.learning_rate = 0.5 / loss_scale
    run, state, measured = Started(config), None, []
    for index in range(num_steps):
        state, report = run.steps([index], state)
        measured.append({name: float(report.window.sums[name]) for name in SAME})
    return jax.device_get(state.params), measured


def assert_same_directions(reference, rescaled, c):
    (params, measured), (params_c, measured_c) = reference, rescaled
    divided = jax.tree.map(lambda x: x / np.float32(c), params_c["encoder"])
    jax.tree.map(np.testing.assert_array_equal, divided, params["encoder"])
    jax.tree.map(np.testing.assert_array_equal, params_c["head"], params["head"])
    assert measured == measured_c


def test_parameters_times_a_constant_train_alike(config):
    config.model.update(depth=1, scan_layers=False)  # compile fast
    reference = train(config, 6, head="sgd")
    assert_same_directions(reference, train(config, 6, c=2.0**10, head="sgd"), 2.0**10)


@pytest.mark.slow
@pytest.mark.parametrize(("weight_decay", "is_clipped"), [(2.0**-6, 0.0), (2.0**-26, 1.0)])
def test_any_power_of_two_trains_alike(config, weight_decay, is_clipped):
    config.optim.schedule = "constant"
    reference = train(config, 60, weight_decay=weight_decay)
    assert {step["clipped"] for step in reference[1]} == {is_clipped}
    for c in (2.0**-10, 2.0**3):
        assert_same_directions(reference, train(config, 60, c=c, weight_decay=weight_decay), c)


@pytest.mark.slow
def test_a_loss_times_a_constant_trains_alike(config):
    reference = train(config, 60, head="sgd")
    for c in (2.0**6, 2.0**-6):
        assert_same_directions(reference, train(config, 60, loss_scale=c, head="sgd"), 1.0)


# Of the fully invariant model, the optimizers that need no rate of their own for another scale.
WITHOUT_RATES = {
    "equilibrium_sgd": {"name": "equilibrium_sgd", "eta_lambda": 2e-3, "blocks": "tensor"},
    "orthogonalized_sgd": {"name": "orthogonalized_sgd", "eta_lambda": 2e-3, "blocks": "tensor"},
    "with memory": {"name": "equilibrium_sgd", "eta_lambda": 2e-3, "options": "memory=4"},
    "clipped": {"name": "equilibrium_sgd", "eta_lambda": 2e-3, "clip_factor": 1.01},
    "unclipped": {"name": "equilibrium_sgd", "eta_lambda": 2e-3, "clip_factor": float("inf")},
    "sphere": {"name": "hyperball", "eta_lambda": 0.0, "learning_rate": 0.05, "blocks": "tensor"},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (i > 0))
        for i, name in enumerate(WITHOUT_RATES)
    ],
)
def test_at_any_scale_the_invariant_model_trains_alike(config, name):
    """Encoder and head under one optimizer."""
    config.model.update(depth=1, arch="sibert_sandwich", scan_layers=False)
    config.task.head, config.optim.head.name = "invariant", "same"
    config.optim.update({"learning_rate": 0.0, "weight_decay": 0.0, **WITHOUT_RATES[name]})
    assert_trains_alike_at_any_scale(config, 6)
