"""The start of a run: initial parameters, and η and λ if gradients set them."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from sibert_jax import optim
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.task import Batch
from sibert_jax.train import sharding
from sibert_jax.train.config import RunConfig
from sibert_jax.train.diagnostics import leaves_where
from sibert_jax.train.optimizer import build_optimizer
from sibert_jax.train.optimizer_table import TABLE
from sibert_jax.train.step import gradient
from sibert_jax.train.trainer import INIT, Shapes


def fresh_params(run: RunConfig, shapes: Shapes) -> Any:
    """Returns the initial parameters for the run's seed."""

    def init(batch: Batch):
        key = jax.random.fold_in(jax.random.key(run.seed), INIT)
        params = shapes.task.init(key, batch)
        return jax.tree.map(
            lambda x, inside: x * run.init_scale if inside else x, params, shapes.mask
        )

    # One example is enough for the shapes that `init` needs.
    zeros = {
        name: np.zeros((1, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in shapes.longest_batch().items()
    }
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes.params)
    return jax.jit(init, out_shardings=shardings)(zeros)


def find_rates(run: RunConfig, shapes: Shapes, params: Any, batch: Batch) -> RunConfig:
    """Returns the run with η and λ set from `optim.eta_lambda`: the first step turns by √(2ηλ).

    An optimizer that measures η itself gets η = 1, a factor on it.

    Args:
      run: the run; if `optim.eta_lambda` is 0, it is returned unchanged.
      shapes: shapes of its task.
      params: parameters before the first update.
      batch: the first batch.

    Raises:
      ConfigError: the gradient is zero.
    """
    eta_lambda = run.optim.eta_lambda
    if eta_lambda == 0:
        return run
    probe = run.optim.with_rates(1.0, eta_lambda)
    if TABLE[probe.name].measures_rate:
        return dataclasses.replace(run, optim=probe)
    measured = build_optimizer(probe, run.train.num_steps, shapes.mask).measured

    def norms(params, batch):
        grads, _ = gradient(shapes.task, params, batch, None, run.train.microbatches)
        return [optax.tree.norm(leaves_where(measured, tree)) for tree in (params, grads)]

    param_norm, grad_norm = jax.jit(sharding.on_mesh(norms, shapes.mesh))(params, batch)
    if not float(grad_norm) > 0:
        raise ConfigError(
            f"the gradient at initialization has norm {float(grad_norm)}, so optim.eta_lambda "
            "cannot set η; give optim.learning_rate and optim.weight_decay."
        )
    learning_rate = float(
        optim.equilibrium.learning_rate_for_rotation(eta_lambda, param_norm, grad_norm)
    )
    rates = run.optim.with_rates(learning_rate, eta_lambda / learning_rate)
    return dataclasses.replace(run, optim=rates)
