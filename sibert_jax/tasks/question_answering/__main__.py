"""Prints EM and F1 of SQuAD 1.1 or 2.0 as the official scripts compute them, in percent.

python -m sibert_jax.tasks.question_answering --data=dev.json --predictions=predictions.json

Files may be .json, .json.gz or .json.xz.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.errors import DataError
from sibert_jax.files import user_path
from sibert_jax.tasks.question_answering.dataset import (
    read_dataset,
    read_na_probs,
    read_predictions,
)
from sibert_jax.tasks.question_answering.scoring import evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the metrics."""
    parser = command.parser("sibert_jax.tasks.question_answering", __doc__)
    parser.add_argument(
        "--data", required=True, type=user_path, help="SQuAD file with the gold answers"
    )
    parser.add_argument(
        "--predictions", required=True, type=user_path, help='{id: answer text, "": no answer}'
    )
    parser.add_argument(
        "--na_probs", type=user_path, help="{id: probability or odds of no answer}, SQuAD 2.0"
    )
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
        command.fail(str(error))
    print(json.dumps(metrics, indent=2))
    return 0


def score(
    data: pathlib.Path,
    predictions: pathlib.Path,
    na_probs: pathlib.Path | None,
    na_threshold: float,
) -> dict:
    """The metrics of a file of predictions; questions without one are counted on stderr."""
    dataset = read_dataset(data)
    for line in dataset.report:
        print(f"{data}: {line}", file=sys.stderr)
    if not dataset.is_labelled:
        raise DataError(f"{data} has no answers to score against; name a labelled file")
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
    command.run(main)
