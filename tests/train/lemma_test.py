"""Lemma 2.4 of Li et al. 2022 on the real model, real text and the real loop, bit for bit.

From c·x₀ with η·c² and λ/c² every direction, loss and clip decision is the same; so is everything
with the loss times c, η/c and c·λ. In float32 this is exact for powers of two.
"""

import json

import jax
import numpy as np
import pytest

ETA = 0.25


@pytest.fixture
def run(train_one, config, tmp_path):
    """Runs the loop and returns the parameters and the metrics."""

    def run(name, *, c=1.0, loss_scale=1.0, weight_decay=2.0**-6, head="lamb"):
        config.checkpoint.every_steps = config.train.num_steps
        config.init_scale = c
        config.task.loss_scale = loss_scale
        config.optim.eta_lambda = 0.0
        config.optim.learning_rate = ETA * c**2 / loss_scale
        config.optim.weight_decay = weight_decay / c**2 * loss_scale
        config.optim.head.name = head
        if head == "sgd":
            config.optim.head.weight_decay = 0.0
            config.optim.head.learning_rate = 0.5 / loss_scale
        state = train_one(config, tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return state.params, [json.loads(line) for line in lines]

    return run


def same_directions(reference, rescaled, c):
    (params, rows), (params_c, rows_c) = reference, rescaled
    divided = jax.tree.map(lambda x: x / np.float32(c), params_c["encoder"])
    jax.tree.map(np.testing.assert_array_equal, divided, params["encoder"])
    jax.tree.map(np.testing.assert_array_equal, params_c["head"], params["head"])
    names = ("train/loss", "optim/clipped", "model/dead_attention_rows", "eval/mlm_loss")
    for row, row_c in zip(rows, rows_c, strict=True):
        for name in names:
            assert row.get(name) == row_c.get(name), (row["step"], name)


@pytest.mark.parametrize(
    "scales",
    [
        (2.0**10,),
        pytest.param((2.0**-10, 2.0**-3, 2.0**3), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("weight_decay", "rate"), [(2.0**-6, 0.0), (2.0**-26, 1.0)])
def test_rescaled_parameters_train_alike(run, config, scales, weight_decay, rate):
    config.train.num_steps = 60
    config.optim.schedule = "constant"
    reference = run("reference", weight_decay=weight_decay)
    rates = {row["optim/clipped"] for row in reference[1] if "optim/clipped" in row}
    assert rates == {rate}
    for c in scales:
        same_directions(reference, run(f"rescaled_{c}", c=c, weight_decay=weight_decay), c)


@pytest.mark.parametrize("c", [2.0**6, pytest.param(2.0**-6, marks=pytest.mark.slow)])
def test_a_rescaled_loss_trains_alike(run, config, c):
    config.train.num_steps = 60
    reference = run("reference", head="sgd")
    same_directions(reference, run("rescaled", loss_scale=c, head="sgd"), 1.0)
