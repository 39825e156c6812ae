"""Every optimizer of the table, for encoder, head and leaves by pattern, from the keys of a config."""

import inspect

import jax
import numpy as np
import optax
import pytest
from optax import contrib

from sibert_jax.errors import ConfigError
from sibert_jax.train.config import run_config
from sibert_jax.train.optimizer import build_optimizer
from sibert_jax.train.optimizer_table import TABLE, averaged_params
from sibert_jax.train.resolve import resolve
from tests.train.started import Started

# Beside the keys of a small run; rates at which a few steps lower the loss.
KEYS = {
    "scale_invariant_sgd": {"learning_rate": 0.5, "weight_decay": 0.01},
    "sgd_sai": {"learning_rate": 0.1},
    "hyperball": {"learning_rate": 0.05, "options": "inner=adam"},
    "psgd_kron": {"learning_rate": 1e-3},
    "psgd_low_rank": {"learning_rate": 1e-3},
    "psgd_matrix_free": {"learning_rate": 1e-3},
    "sgd": {"learning_rate": 0.1},
    "momentum": {"learning_rate": 0.1, "options": "nesterov=True"},
    "sign_sgd": {"learning_rate": 1e-3},
    "adamw": {"learning_rate": 1e-2, "weight_decay": 0.01, "options": "b2=0.98"},
    "lamb": {"learning_rate": 1e-2, "weight_decay": 0.01},
    "lars": {"learning_rate": 1.0},
    "lion": {"learning_rate": 1e-3},
    "adafactor": {"learning_rate": 1e-2, "options": "min_dim_size_to_factor=8"},
    "muon": {"learning_rate": 1e-2},
    "ademamix": {"learning_rate": 1e-3},
    "schedule_free_sgd": {"learning_rate": 1.0, "schedule": "constant"},
    "schedule_free_adamw": {"learning_rate": 1e-2, "schedule": "constant"},
}


def set_keys(section, name, **keys):
    section.name = name
    for key, value in keys.items():
        section[key] = value


@pytest.fixture
def plain(config):
    config.optim.eta_lambda = 0.0
    return config


def test_the_table_is_all_tested():
    assert KEYS.keys() == TABLE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_it_trains_the_encoder_and_is_measured(plain, name):
    set_keys(plain.optim, name, **KEYS[name])
    plain.train.log_every_steps = 1
    run = Started(plain)
    before = run.steps([0])[1].window.sums
    state, report = run.steps([0] * 5)
    measured = report.window.sums
    assert measured["loss"] < before["loss"]
    assert measured["rotation"] > 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), run.params, state.params)
    assert moved["encoder"]["stem"]["kernel"]
    assert moved["head"]["output"]
    averaged_params(state.opt_state, state.params)
