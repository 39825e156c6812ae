"""Heads of degree 0: the analysis certifies the loss in all parameters, of each kind of task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax import homogeneity
from sibert_jax.tasks.classification.task import Classification, ClassificationConfig
from sibert_jax.tasks.invariant_head import unit_rows, unit_table
from sibert_jax.tasks.pretraining.task import Pretraining, PretrainingConfig
from sibert_jax.tasks.question_answering.task import QuestionAnswering, QuestionAnsweringConfig
from tests.builders import model_config, random_params

TASKS = {
    "pretraining": (Pretraining, PretrainingConfig(head="invariant")),
    "classes": (Classification, ClassificationConfig(head="invariant", dataset="mnli")),
    "a pair": (
        Classification,
        ClassificationConfig(head="invariant", dataset="rte", pooling="pair"),
    ),
    "a score": (Classification, ClassificationConfig(head="invariant", dataset="stsb")),
    "spans": (QuestionAnswering, QuestionAnsweringConfig(head="invariant")),
}


@pytest.fixture(params=TASKS)
def task(request):
    kind, keys = TASKS[request.param]
    return kind(model_config(arch="sibert_sandwich", depth=1), keys, (16,))


def losses_of(task):
    def losses(params, batch):
        sums = task.sums(params, batch)
        return [sums[name] for name in task.loss_names]

    return losses


def test_the_whole_loss_is_certified_and_tensors_are_blocks(task):
    batch = task.abstract_batch(2, 16)
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert all(jax.tree.leaves(task.invariance_mask(params)))
    report = homogeneity.analyse(losses_of(task), params, batch)
    assert report.obstruction(task.invariance_mask(params)) is None
    kernels = {name for name in report.names if name.endswith("kernel") and "up" not in name}
    assert {(name,) for name in kernels} <= set(report.blocks())


def test_no_bit_of_the_loss_changes_with_the_scale(task):
    rng = np.random.default_rng(0)
    batch = {
        name: jnp.asarray(rng.integers(0, 2, leaf.shape), leaf.dtype)
        for name, leaf in task.abstract_batch(2, 16).items()
    }
    params, losses = random_params(task.init, batch), jax.jit(losses_of(task))
    scaled = jax.tree.map(lambda x: x * np.float32(2.0**-7), params)
    assert losses(scaled, batch) == losses(params, batch)


def test_rows_or_the_table_get_norm_one_and_zeros_stay():
    table = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(unit_rows(table), [[0.6, 0.8], [0, 0], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(unit_table(table), table / np.sqrt(29 / 3), rtol=1e-6)
    assert not unit_table(0 * table).any()
