"""One update: the closed form on the encoder, its metrics, and what XLA makes of it.

A pass is one reading or writing of every parameter.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.train import step as step_module
from sibert_jax.train.config import default_config
from sibert_jax.train.step import Step
from tests.train.conftest import make_config
from tests.train.started import Started, bare_trainer

ETA_LAMBDA = 3.3e-3


def of_encoder(tree) -> np.ndarray:
    return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree["encoder"])])


def random_like(tree, seed):
    keys = iter(jax.random.split(jax.random.key(seed), 100))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), tree)


def step_of(trainer) -> Step:
    return Step(trainer.shapes.task, trainer.optimizer, 1, 4, None, trainer.bad_steps)


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
    step = step_of(trainer)
    after, report = jax.jit(step.__call__)(step.init(params), grads)
    x, g, y = (of_encoder(tree) for tree in (params, grads, after.params))
    threshold = np.sqrt(2 * c.clip_factor * c.weight_decay / c.learning_rate)
    factor = min(1.0, threshold * np.linalg.norm(x) / np.linalg.norm(g))
    wanted = (1 - c.learning_rate * c.weight_decay) * x - c.learning_rate * factor * g
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    assert (factor < 1) == report.window.sums["clipped"] == clipped
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    np.testing.assert_allclose(report.window.sums["rotation"], angle, rtol=1e-3)


@pytest.mark.usefixtures("given_gradient")
def test_the_metrics_read_everything_once_more_and_copy_nothing(config):
    """Of the encoder: ‖x‖, ‖g‖, ⟨x, g⟩ (2) and the update (3). Only the head's update is kept."""
    config.model.update(width=128, ffn_width=512, vocab_size=1024)  # large beside the scalars
    config.optim.head.name = "sgd"
    trainer = bare_trainer(config)
    params, step = trainer.shapes.params, step_of(trainer)
    state = jax.eval_shape(step.init, params)
    program = jax.jit(step.__call__, donate_argnums=0).lower(state, params).compile()
    inside, outside = (
        sum(4 * leaf.size for leaf in jax.tree.leaves(params[part])) for part in ("encoder", "head")
    )
    read_and_written = program.cost_analysis()["bytes accessed"]
    assert read_and_written < 7.1 * inside + 8 * outside
    assert program.memory_analysis().temp_size_in_bytes < 1.2 * outside


def test_bfloat16_is_for_matrix_products_only(config):
    config.model.dtype = "bfloat16"
    trainer = bare_trainer(config)
    shapes = trainer.shapes

    def grads(params, batch):
        return step_module.gradient(shapes.task, params, batch, None, 1)[0]

    given = shapes.params, shapes.longest_batch()
    kept = jax.tree.leaves((trainer.abstract_state, jax.eval_shape(grads, *given)))
    floats = {leaf.dtype for leaf in kept if leaf.dtype not in (jnp.int32, jnp.bool_)}
    assert floats == {jnp.dtype(jnp.float32)}
    program = str(jax.make_jaxpr(grads)(*given))
    products = re.findall(r":(\w+)\[[\d,]*\] = dot_general", program)
    assert products.count("bf16") > 0.6 * len(products) > 10  # the others add up in float32


@pytest.fixture(scope="module")
def started(text, cache):
    """A run that finds its rates, and its gradient as a function of batch and microbatches."""
    config = make_config(text, cache)
    config.optim.update(eta_lambda=ETA_LAMBDA, learning_rate=0.0, weight_decay=0.0)
    run = Started(config)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(batch, count):
        return step_module.gradient(run.shapes.task, run.params, batch, None, count)

    return run, gradient


def test_the_first_step_turns_by_the_equilibrium_angle(started):
    run, gradient = started
    c, (grads, _) = run.run.optim, gradient(run.batch(0), 1)
    ratio = np.linalg.norm(of_encoder(grads)) / np.linalg.norm(of_encoder(run.params))
    assert c.learning_rate * c.weight_decay == pytest.approx(ETA_LAMBDA, rel=1e-6)
    assert c.learning_rate * ratio == pytest.approx(np.sqrt(2 * ETA_LAMBDA), rel=1e-4)


def test_from_step_20_on_weights_turn_as_the_one_number_says(config):
    """Of encoder and head under `equilibrium_sgd`, in means over 20 steps."""
    stateless = default_config()
    config.task, config.optim = stateless.task, stateless.optim
    config.task.nsp, config.optim.eta_lambda, config.optim.schedule = False, 1e-3, "constant"
    config.model.depth, config.train.num_steps, config.train.log_every_steps = 1, 80, 20
    run, state, found = Started(config), None, []
    for start in range(0, 80, 20):
        state, report = run.steps(range(start, start + 20), state)
        sums = report.window.sums
        found.append(float(sums["rotation"] / sums["predicted_rotation"]))
    np.testing.assert_allclose(found[1:], 1, atol=0.1)


def test_microbatches_change_nothing_but_rounding(started):
    run, gradient = started
    batch = run.batch(0)
    # Very different numbers of masked tokens in the two halves.
    weights = np.array(batch["masked_weights"])
    weights[1::2, 1:] = 0
    batch["masked_weights"] = jnp.asarray(weights)
    whole, parts = (gradient(batch, count) for count in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), whole, parts)
