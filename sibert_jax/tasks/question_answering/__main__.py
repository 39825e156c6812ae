"""Scores a file of predictions by the official metrics and prints them as JSON.

python -m sibert_jax.tasks.question_answering --data=dev.json --predictions=predictions.json
"""

import argparse
import json
import sys
from collections.abc import Sequence

from sibert_jax.data.errors import DataError
from sibert_jax.tasks.question_answering.dataset import (
    read_dataset,
    read_na_probs,
    read_predictions,
)
from sibert_jax.tasks.question_answering.scoring import evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the metrics; 1 and one sentence on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m sibert_jax.tasks.question_answering",
        description="EM and F1 of SQuAD 1.1 or 2.0 as the official scripts compute them, in "
        "percent. Files may be .json, .json.gz or .json.xz.",
    )
    parser.add_argument("--data", required=True, help="SQuAD file with the gold answers")
    parser.add_argument("--predictions", required=True, help='{id: answer text, "": no answer}')
    parser.add_argument("--na_probs", help="{id: probability or odds of no answer}, SQuAD 2.0")
    parser.add_argument(
        "--na_threshold",
        type=float,
        default=1.0,
        help="a question with a larger na_prob counts as predicted to have no answer; 1.0 if unset",
    )
    parsed = parser.parse_args(arguments)
    try:
        metrics = score(parsed.data, parsed.predictions, parsed.na_probs, parsed.na_threshold)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(metrics, indent=2))
    return 0


def score(data: str, predictions: str, na_probs: str | None, na_threshold: float) -> dict:
    """The metrics of a file of predictions; questions without one are counted on stderr."""
    dataset = read_dataset(data)
    if na_probs and not dataset.unanswerable:
        raise DataError(f"--na_probs is for SQuAD 2.0, but every question of {data} has an answer")
    found = read_predictions(predictions, dataset)
    if missing := len(dataset.questions) - len(found):
        print(f"{missing:,} questions have no prediction and score 0", file=sys.stderr)
    return evaluate(
        dataset.gold_answers(),
        found,
        unanswerable=dataset.unanswerable,
        na_probs=read_na_probs(na_probs, dataset) if na_probs else None,
        na_threshold=na_threshold,
    )


if __name__ == "__main__":
    sys.exit(main())
