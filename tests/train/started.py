"""Runs in memory, before their first step, and runs that stop at a step."""

import dataclasses
import math

import jax
import ml_collections
import numpy as np

from sibert_jax.runtime.signals import StopRequest
from sibert_jax.tasks.task import Batch
from sibert_jax.train import sharding
from sibert_jax.train.config import run_config
from sibert_jax.train.loop import load_batch
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from sibert_jax.train.start import find_rates, fresh_params
from sibert_jax.train.trainer import Shapes, Trainer, bare_task

Sizes = tuple[int, int, int]  # of a mesh


class StopAfter(StopRequest):
    """Asks to stop after so many steps, as a signal during the last of them would."""

    def __init__(self, num_steps: int):
        self._left = num_steps
        super().__init__()

    @property
    def requested(self) -> str:
        self._left -= 1  # the loop asks once a step
        return "SIGTERM" if self._left <= 0 else ""

    @requested.setter
    def requested(self, name: str):
        pass


class Started:
    """The trainer of a config with its data and fresh parameters."""

    def __init__(self, config: ml_collections.ConfigDict, sizes: Sizes = (1, 1, 1)):
        run = run_config(resolve(config))
        task, self.data = load_task(run, progress=lambda line: None)
        run = run.with_num_steps(self.data.steps_per_epoch)
        self.shapes = Shapes.of(run, mesh_of(sizes), task)
        self.params = fresh_params(run, self.shapes)
        self.run = find_rates(run, self.shapes, self.params, self.batch(0))
        self.trainer = Trainer(self.run, self.shapes)

    def batch(self, index: int) -> Batch:
        return load_batch(self.shapes, self.data, index)

    def steps(self, indices, state=None):
        """The state and the report after an update on each of some batches; donates the state."""
        state, report = self.trainer.init(self.params) if state is None else state, None
        for index in indices:
            state, report = self.trainer.step(state, self.batch(index))
        return state, report


def assert_trains_alike_at_any_scale(config: ml_collections.ConfigDict, num_steps: int) -> None:
    """All parameters by 2⁻⁸ and the loss by 2⁵: the same losses and directions, bit for bit."""
    config.train.num_steps, config.train.log_every_steps = num_steps, 1

    def run(scale, loss_scale):
        config.init_scale, config.task.loss_scale = scale, loss_scale
        run, state, losses = Started(config), None, []
        for index in range(num_steps):
            state, report = run.steps([index], state)
            losses.append(float(report.window.sums["loss"]))
        return jax.device_get(state.params), losses

    params, losses = run(1.0, 1.0)
    scaled, losses_scaled = run(2.0**-8, 2.0**5)
    assert losses_scaled == losses
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a * 2.0**8, b), scaled, params)


def bare_trainer(config: ml_collections.ConfigDict, sizes: Sizes = (1, 1, 1)) -> Trainer:
    """The trainer of a config, without data; the rates are 0.5 and 0.02."""
    run = run_config(resolve(config)).with_num_steps(1)
    run = dataclasses.replace(run, optim=run.optim.with_rates(0.5, 0.02))
    return Trainer(run, Shapes.of(run, mesh_of(sizes), bare_task(run)))


def mesh_of(sizes: Sizes) -> jax.sharding.Mesh:
    return sharding.make_mesh(*sizes, jax.devices()[: math.prod(sizes)])
