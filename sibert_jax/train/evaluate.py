"""Held-out batches through the compiled evaluation of a task, one program a length."""

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.data import prefetch
from sibert_jax.tasks.task import Batch, Batches, Task
from sibert_jax.train import sharding


class Evaluator:
    """`task.eval_batch` on a mesh.

    Args:
      task: what to evaluate.
      mesh: where.
      batch_size: rows of a global batch.
      abstract_params: ShapeDtypeStructs with shardings.
    """

    def __init__(self, task: Task, mesh: Mesh, batch_size: int, abstract_params):
        self._task, self._mesh, self._batch_size = task, mesh, batch_size
        self._abstract_params = abstract_params
        evaluate = sharding.on_mesh(task.eval_batch, mesh)
        self._jitted = jax.jit(evaluate, out_shardings=NamedSharding(mesh, P()))
        self._compiled = {}

    def results(self, params, batches: Batches, count: int) -> list:
        """What `eval_batch` returns for the first `count` batches, on the host."""

        def batch(index: int) -> Batch:
            return sharding.load_batch(batches, index, self._mesh, self._batch_size)

        with prefetch(batch, 0, count) as loaded:
            results = [self._program(rows)(params, rows) for _, rows in loaded]
        return jax.device_get(results)

    def _program(self, batch: Batch):
        """Compiled once a length, at its first batch; another shape is an error."""
        seq_len = batch["tokens"].shape[1]
        if seq_len not in self._compiled:
            abstract = abstract_batch(self._task, self._mesh, self._batch_size, seq_len)
            self._compiled[seq_len] = self._jitted.lower(self._abstract_params, abstract).compile()
        return self._compiled[seq_len]


def abstract_batch(task: Task, mesh: Mesh, batch_size: int, seq_len: int) -> Batch:
    """Shapes and places of a global batch of one length."""
    where = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
        for name, leaf in task.abstract_batch(batch_size, seq_len).items()
    }
