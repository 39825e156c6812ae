"""What a finished run comes to: predictions on whole held-out sets, and `results.json`."""

import json
import pathlib
import time
from collections.abc import Callable

import jax

from sibert_jax.train import workdir
from sibert_jax.train.session import Session


def write(session: Session, params, directory: pathlib.Path, say: Callable[[str], None]) -> None:
    """Predicts every held-out set of the task; writes `predictions/` and `results.json`.

    `results.json` holds the step, the metrics of each set after the last step, examples predicted
    a second, and the best evaluation during training by the task's main metric.
    """
    results = {"step": session.run.train.num_steps, "last": {}}
    for held in session.data.held_out:
        start = time.perf_counter()
        predicted = session.predict(params, held.batches)
        seconds = time.perf_counter() - start
        if jax.process_index() != 0:
            continue
        (directory / "predictions").mkdir(exist_ok=True)
        scores = held.finish(predicted, directory / "predictions")
        speed = len(held.batches) * session.batch_size / seconds
        results["last"][held.name] = scores | {"examples_per_second": round(speed, 1)}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"{held.name}: {shown or 'predicted'}  ({speed:,.0f} examples/s)")
    if session.data.held_out and jax.process_index() == 0:
        name = f"eval/{session.data.main_metric}"
        results["best"] = best_row(directory / "metrics.jsonl", name)
        workdir.write_json(directory / "results.json", results)


def best_row(path: pathlib.Path, name: str) -> dict[str, float]:
    """The first row of a metrics file with the highest value of a metric, as {"step", "eval/..."}.

    A metric that is not a number ranks last.
    """
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row.get(name) is not None and row[name] == row[name]]
    if not rows:
        return {}
    best = max(rows, key=lambda row: row[name])
    return {key: value for key, value in best.items() if key == "step" or key.startswith("eval/")}
