"""Evaluation on held-out batches, and the results of a finished run."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.data import prefetch
from sibert_jax.files import write_json
from sibert_jax.tasks.task import Batch, Batches, TaskData
from sibert_jax.train import sharding
from sibert_jax.train.trainer import Programs, Shapes


class Evaluator:
    """The compiled evaluation of a task on a mesh."""

    def __init__(self, shapes: Shapes):
        self._shapes = shapes
        replicated = NamedSharding(shapes.mesh, P())
        self._program = Programs(
            shapes.task.eval_batch, shapes, shapes.params, out_shardings=replicated
        )

    @property
    def batch_size(self) -> int:
        """Rows of a global batch."""
        return self._shapes.batch_size

    def results(self, params: Any, batches: Batches, count: int) -> list:
        """Returns `Task.eval_batch` for the first `count` batches, on the host."""

        def batch(index: int) -> Batch:
            return sharding.load_batch(batches, index, self._shapes.mesh, self.batch_size)

        with contextlib.closing(prefetch(batch, 0, count)) as loaded:
            results = [self._program(params, rows) for _, rows in loaded]
        return jax.device_get(results)

    def metrics(self, params: Any, valid: Batches, most: int) -> dict[str, float]:
        """Returns metrics "eval/..." over the first `most` held-out batches; 0: over all."""
        count = min(most or len(valid), len(valid))
        metrics = self._shapes.task.eval_metrics(self.results(params, valid, count))
        return {f"eval/{name}": value for name, value in metrics.items()}


def write_results(
    evaluator: Evaluator,
    params: Any,
    data: TaskData,
    facts: dict,
    directory: pathlib.Path,
    say: Callable[[str], None],
) -> None:
    """Predicts every held-out set of the task; writes `predictions/` and `results.json`.

    `results.json` holds the facts, the last evaluation during training and the best one by the
    task's main metric, and for each held-out set its metrics and the examples predicted per second.

    Args:
      evaluator: the task's evaluator.
      params: the parameters to evaluate.
      data: the task's data.
      facts: facts about the run, written first.
      directory: the workdir.
      say: called with messages.
    """
    results = {**facts, "main_metric": data.main_metric, "held_out": {}}
    for held in data.held_out:
        start = time.perf_counter()
        predicted = evaluator.results(params, held.batches, len(held.batches))
        seconds = time.perf_counter() - start
        if jax.process_index() != 0:
            continue
        (directory / "predictions").mkdir(exist_ok=True)
        scores = held.finish(predicted, directory / "predictions")
        rows = len(held.batches) * evaluator.batch_size
        results["held_out"][held.name] = scores | {"examples_per_second": round(rows / seconds, 1)}
        shown = "  ".join(
            f"{name} {value:.4f}" for name, value in scores.items() if isinstance(value, float)
        )
        say(f"{held.name}: {shown or 'predicted'}  ({rows / seconds:,.0f} examples/s)")
    if jax.process_index() == 0:
        rows = evaluations(directory / "metrics.jsonl")
        results["last"] = rows[-1] if rows else {}  # they may be lost on a full disk
        name = f"eval/{data.main_metric}"
        trained = [row for row in rows if row["step"] > 0]
        results["best"] = best_row(trained, name, lower_is_better=data.lower_is_better)
        write_json(directory / "results.json", results)


def evaluations(path: pathlib.Path) -> list[dict[str, float | None]]:
    """Reads the evaluations in a metrics file, as {"step", "eval/..."}; None: not finite."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows]
    return [row for row in rows if len(row) > 1]


def best_row(rows: list[dict[str, float | None]], name: str, *, lower_is_better: bool) -> dict:
    """Returns the first row with the best value of a metric; {} if no row has a finite one."""
    ranked = [row for row in rows if row[name] is not None]
    choose = min if lower_is_better else max
    return choose(ranked, key=lambda row: row[name]) if ranked else {}
