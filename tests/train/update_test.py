"""One update: the closed form on the encoder, its metrics, and what XLA makes of it.

A pass is one reading or writing of every parameter.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.train import step as step_module
from sibert_jax.train.step import gradient
from tests.train.started import Started, bare_trainer


def of_encoder(tree) -> np.ndarray:
    return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree["encoder"])])


def random_like(tree, seed):
    keys = iter(jax.random.split(jax.random.key(seed), 100))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), tree)


@pytest.fixture
def given_gradient(monkeypatch):
    """Makes the batch of a step its gradient."""

    def from_batch(task, params, batch, key, microbatches):
        names = ("loss", *task.loss_names, "dead_attention_rows")
        return batch, dict.fromkeys(names, jnp.float32(1.0))

    monkeypatch.setattr(step_module, "gradient", from_batch)


@pytest.mark.usefixtures("given_gradient")
@pytest.mark.parametrize(("scale", "clipped"), [(1e-2, 0), (1e2, 1)])
def test_an_update_is_the_closed_form_and_its_angle_is_logged(config, scale, clipped):
    config.optim.schedule = "constant"
    trainer = bare_trainer(config)
    c, params = trainer.run.optim, random_like(trainer.shapes.params, 0)
    noise = random_like(trainer.shapes.params, 1)
    grads = jax.tree.map(lambda g, x: scale * (g + 0.5 * x), noise, params)
    after, report = trainer.step_function(trainer.init(params), grads)
    x, g, y = (of_encoder(tree) for tree in (params, grads, after.params))
    threshold = np.sqrt(2 * c.clip_factor * c.weight_decay / c.learning_rate)
    factor = min(1.0, threshold * np.linalg.norm(x) / np.linalg.norm(g))
    wanted = (1 - c.learning_rate * c.weight_decay) * x - c.learning_rate * factor * g
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    assert (factor < 1) == report.window.sums["clipped"] == clipped
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    np.testing.assert_allclose(report.window.sums["rotation"], angle, rtol=1e-3)
