"""What a finished run comes to: predictions on whole held-out sets, and `results.json`."""

import json
import pathlib
import time
from collections.abc import Callable

import jax

from sibert_jax.files import write_json
from sibert_jax.train.session import Session


def write(session: Session, params, directory: pathlib.Path, say: Callable[[str], None]) -> None:
    """Predicts every held-out set of the task; writes `predictions/` and `results.json`.

    `results.json` holds the step, the last evaluation during training and the best one by the
    task's main metric, and for each held-out set its metrics and examples predicted a second.
    """
    results = {"step": session.run.train.num_steps, "main_metric": session.data.main_metric}
    results["held_out"] = {}
    for held in session.data.held_out:
        start = time.perf_counter()
        predicted = session.predict(params, held.batches)
        seconds = time.perf_counter() - start
        if jax.process_index() != 0:
            continue
        (directory / "predictions").mkdir(exist_ok=True)
        scores = held.finish(predicted, directory / "predictions")
        speed = len(held.batches) * session.batch_size / seconds
        results["held_out"][held.name] = scores | {"examples_per_second": round(speed, 1)}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"{held.name}: {shown or 'predicted'}  ({speed:,.0f} examples/s)")
    if jax.process_index() == 0:
        rows = evaluations(directory / "metrics.jsonl")
        results["last"] = rows[-1] if rows else {}  # a full disk may have lost them
        results["best"] = best_row(rows, f"eval/{session.data.main_metric}")
        write_json(directory / "results.json", results)


def evaluations(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a metrics file that hold an evaluation, as {"step", "eval/..."}."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows]
    return [row for row in rows if len(row) > 1]


def best_row(rows: list[dict[str, float]], name: str) -> dict[str, float]:
    """The first row with the best value of a metric: of a loss the lowest, else the highest.

    A metric that is not a number ranks last.
    """
    ranked = [row for row in rows if row[name] == row[name]]
    choose = min if "loss" in name else max
    return choose(ranked, key=lambda row: row[name]) if ranked else {}
