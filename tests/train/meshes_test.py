"""The numbers of a step do not depend on the mesh it is taken on, but for rounding."""

import jax
import numpy as np
import optax
import pytest

from sibert_jax.configs import mini
from tests.train.started import Started

MESHES = [(8, 1, 1), (2, 4, 1), (2, 2, 2)]
NORMS = ("loss", "grad_norm", "param_norm", "relative_grad_norm", "rotation", "learning_rate")
DECISIONS = ("clipped", "dead_attention_rows")


def step(run, host_state, index):
    """One step from a state that lies on the host: what it measured, and the state after it."""

    def place(x, like):  # a copy, as on CPU JAX may use NumPy's memory, which a step writes over
        return jax.device_put(np.copy(x), like.sharding)

    placed = jax.tree.map(place, host_state, run.trainer.abstract_state)
    state, report = run.steps([index], placed)
    return jax.device_get(report.window.sums), jax.device_get(state)


def walk(run, num_steps):
    """Before and after each step: the state, what was measured, the parameters."""
    state = jax.device_get(run.trainer.init(run.params))
    for index in range(num_steps):
        measured, after = step(run, state, index)
        yield state, measured, after.params
        state = after


def assert_the_same_step(measured, params, other_measured, other_params):
    """Measured: norms within 3e-7 of each other, parameters after the step within 1e-8."""
    for name in NORMS:
        assert measured[name] == pytest.approx(other_measured[name], rel=1e-6, abs=0), name
    for name in DECISIONS:
        assert measured[name] == other_measured[name], name
    apart = optax.tree.norm(jax.tree.map(np.subtract, params, other_params))
    assert apart <= 1e-7 * optax.tree.norm(params)


def test_from_one_state_a_step_is_the_same_on_another_mesh(config):
    config.train.log_every_steps = config.model.depth = 1
    config.model.scan_layers, config.optim.head.name = False, "sgd"  # compile fast
    # Of these six steps some are clipped, and some have dead rows.
    config.data.seq_len = config.model.max_len = 8  # a row of so few scores may well be dead
    config.train.global_batch_size = 32
    config.optim.eta_lambda = 0.0
    config.optim.learning_rate, config.optim.weight_decay = 0.7, 7e-4
    one, other = Started(config), Started(config, (2, 2, 2))
    clipped, dead = [], []
    for index, (before, measured, params) in enumerate(walk(one, 6)):
        other_measured, after = step(other, before, index)
        assert_the_same_step(measured, params, other_measured, after.params)
        clipped.append(bool(measured["clipped"]))
        dead.append(measured["dead_attention_rows"] > 0)
    assert any(clipped)
    assert not all(clipped)
    assert any(dead)


@pytest.mark.slow
def test_fifty_steps_are_the_same_on_every_mesh(text, cache):
    """Each step of a mesh's own run is the one that a single device takes from the same state.

    From step to step the runs go apart, as runs on one device do that begin a little apart: near a
    dead row ReLU attention divides by almost nothing, which makes rounding visible.
    """
    config = mini.get_config()
    config.data.path, config.data.valid_path = str(text), ""
    config.data.cache_dir, config.model.vocab_size = str(cache), 512
    config.train.num_steps, config.train.log_every_steps = 50, 1
    config.train.global_batch_size, config.data.seq_len = 16, 32
    config.optim.head.warmup_steps = 5
    one = Started(config)
    losses = [measured["loss"] for _, measured, _ in walk(one, 50)]
    dead = 0
    for mesh in MESHES:
        run = Started(config, mesh)
        own_losses = []
        for index, (before, measured, params) in enumerate(walk(run, 50)):
            one_measured, after = step(one, before, index)
            assert_the_same_step(measured, params, one_measured, after.params)
            own_losses.append(measured["loss"])
            dead += measured["dead_attention_rows"] > 0
        np.testing.assert_allclose(own_losses, losses, rtol=1e-5)
    assert dead  # a count that is always 0 would show nothing
