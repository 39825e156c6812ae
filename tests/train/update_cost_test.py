"""What XLA makes of a step after its gradient: update, metrics and the verdict on the step.

A pass is one reading or writing of every parameter.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.train import build, sharding
from sibert_jax.train.session import Session
from sibert_jax.train.step import Step


class GivenGradient(Step):
    """A step whose batch is its gradient."""

    def gradient(self, params, batch, key):
        names = ("loss", *self.task.loss_names, "dead_attention_rows")
        return batch, dict.fromkeys(names, jnp.float32(1.0))


def step_of(config) -> tuple[GivenGradient, Session]:
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    session = Session(run, mesh, build.bare_task(run), None)
    recipe = build.build_recipe(run, 0.5, 0.02, session.mask)
    step = GivenGradient(build.bare_task(run), recipe, session.mask, 1, 4, None, session.bad_steps)
    return step, session


@pytest.fixture
def large(config):
    """Leaves that are large beside the scalars of a step."""
    config.model.update(width=128, ffn_width=512, vocab_size=1024)
    config.optim.head.name = "sgd"
    return config


def test_the_metrics_read_parameters_and_gradients_once_more_and_copy_nothing(large):
    """Of the encoder: ‖x‖, ‖g‖, ⟨x, g⟩ (2) and the update (3). Only the head's update is kept."""
    step, session = step_of(large)
    params = session.abstract_params
    state = jax.eval_shape(step.init, params)
    program = jax.jit(step.__call__, donate_argnums=0).lower(state, params).compile()
    sizes = [4 * x.size for x in jax.tree.leaves(params)]
    inside = sum(size for size, inv in zip(sizes, jax.tree.leaves(session.mask)) if inv)
    outside = sum(sizes) - inside
    read_and_written = program.cost_analysis()["bytes accessed"]
    assert read_and_written < 7.1 * inside + 8 * outside
    assert program.memory_analysis().temp_size_in_bytes < 1.2 * outside
    assert not re.search(r"f32\[\d+,[\d,]+\]\S* copy\(", program.as_text())


@pytest.mark.parametrize(("scale", "clipped"), [(1e-2, 0), (1e2, 1)])
def test_the_logged_rotation_is_the_angle_between_the_parameters_before_and_after(
    config, scale, clipped
):
    step, session = step_of(config)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    params, grads = (
        jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), session.abstract_params)
        for _ in range(2)
    )
    grads = jax.tree.map(lambda g, x: scale * (g + 0.5 * x), grads, params)
    after, report = jax.jit(step.__call__)(step.init(params), grads)

    def vector(tree):
        return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree["encoder"])])

    x, y = vector(params), vector(after.params)
    wanted = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert report.window.sums["clipped"] == clipped
    np.testing.assert_allclose(report.window.sums["rotation"], wanted, rtol=1e-3)


def test_bfloat16_is_for_computing_only_parameters_optimizer_and_gradients_are_float32(config):
    config.model.dtype = "bfloat16"
    run = build.run_config(config)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    session = Session(run, mesh, build.bare_task(run), None)
    recipe = build.build_recipe(run, 0.5, 0.02, session.mask)
    step = Step(session.task, recipe, session.mask, 1, 4, None, session.bad_steps)
    params, batch = session.abstract_params, session.abstract_batch()
    state = jax.eval_shape(step.init, params)
    grads, _ = jax.eval_shape(lambda *given: step.gradient(*given, None), params, batch)
    kept = [x.dtype for x in jax.tree.leaves((state, grads)) if x.dtype != jnp.int32]
    assert set(kept) <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.bool_)}
    program = str(jax.make_jaxpr(lambda *given: step.gradient(*given, None))(params, batch))
    products = re.findall(r":(\w+)\[[\d,]*\] = dot_general", program)
    assert products.count("bf16") > 0.6 * len(products) > 10  # the others add up in float32
