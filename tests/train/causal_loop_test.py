"""Causal language models in the same loop: resumed, on a mesh, at any scale."""

import functools
import signal

import jax
import numpy as np
import pytest

from sibert_jax.configs import gpt
from tests.train.lives import Run, at_phase
from tests.train.meshes_test import assert_the_same_step, step, walk
from tests.train.metrics_rows import rows
from tests.train.started import Started, assert_trains_alike_at_any_scale


@pytest.fixture(params=["mini", "mini_adamw"])
def small(request, config):
    """The recipe of a variant on the sizes and the text of the other runs here."""
    found = gpt.get_config(request.param)
    sizes = {name: config.model[name] for name in ("vocab_size", "max_len", "width", "ffn_width")}
    found.model.update(sizes, depth=1, scan_layers=False)
    for section in ("data", "train", "checkpoint"):
        found[section].update(config[section].to_dict())
    return found


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_straight_run(small, tmp_path, train_one):
    small.mesh.data = 1
    state = train_one(small, tmp_path / "straight")
    broken = Run(small, tmp_path / "broken")
    kill = functools.partial(at_phase, "checkpoint", 3, signal.SIGKILL)
    assert broken.finish(kill) == -signal.SIGKILL, broken.said()
    assert broken.steps_saved() in ([5], [5, 10])
    same = np.testing.assert_array_equal
    jax.tree.map(same, jax.device_get(train_one(small, broken.workdir)), jax.device_get(state))
    assert rows(broken.workdir) == rows(tmp_path / "straight")


@pytest.mark.slow
def test_from_one_state_a_step_is_the_same_on_another_mesh(small):
    small.train.log_every_steps = 1
    # AdamW and what measures its rate make large numbers of the rounding of small ones.
    small.optim.update(name="scale_invariant_sgd", blocks="all", options="", warmup_fraction=0.0)
    small.optim.update(eta_lambda=0.0, learning_rate=0.5, weight_decay=1e-3, max_grad_norm=0.0)
    one, other = Started(small), Started(small, (2, 2, 2))
    for index, (before, measured, params) in enumerate(walk(one, 3)):
        other_measured, after = step(other, before, index)
        assert_the_same_step(measured, params, other_measured, after.params)


@pytest.mark.slow  # of a gradient: tests/tasks/causal_lm
@pytest.mark.parametrize("small", ["mini"], indirect=True)
def test_at_any_scale_sigpt_trains_alike(small):
    """Lemma 2.4 of Li et al."""
    assert_trains_alike_at_any_scale(small, 4)
