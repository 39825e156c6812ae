"""The loss of a config, for degree analysis."""

from typing import Any

import jax
import ml_collections

from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import analyzable_task, bare_task


def loss_of_config(config: ml_collections.ConfigDict) -> tuple[Any, Any, tuple, Any]:
    """Returns a config's loss, abstract parameters, further arguments and invariance mask.

    Raises:
      ConfigError: the config is invalid.
    """
    run = run_config(resolve(config))
    task = analyzable_task(run, bare_task(run))
    batch = task.abstract_batch(2, task.seq_lens[-1])
    params = jax.eval_shape(task.init, jax.random.key(run.seed), batch)
    dropout_key = jax.random.key(run.seed) if run.model.dropout > 0 else None

    def loss(params, batch, dropout_key):
        sums, denominators = task.sums(params, batch, dropout_key), task.denominators(batch)
        return sum(sums[name] / denominators[name] for name in task.loss_names)

    return loss, params, (batch, dropout_key), task.invariance_mask(params)
