"""Prints EM and F1 of SQuAD 1.1 or 2.0 as the official scripts compute them, in percent.

python -m sibert_jax.tasks.question_answering --data=dev.json --predictions=predictions.json

Files may be .json, .json.gz or .json.xz.
"""

import json
import math
import pathlib
import sys
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.errors import DataError
from sibert_jax.files import user_path
from sibert_jax.tasks.question_answering.dataset import (
    LONE_SURROGATE,
    REPLACEMENT,
    Dataset,
    evaluate,
    read_dataset,
    read_json,
    shown,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the metrics."""
    parser = command.parser("sibert_jax.tasks.question_answering", __doc__)
    parser.add_argument(
        "--data", required=True, type=user_path, help="SQuAD file with the true answers"
    )
    parser.add_argument(
        "--predictions",
        required=True,
        type=user_path,
        help='JSON file {question id: answer text}; "": no answer',
    )
    parser.add_argument(
        "--na_probs",
        type=user_path,
        help="JSON file {question id: probability or odds of no answer}, for SQuAD 2.0",
    )
    parser.add_argument(
        "--na_threshold",
        type=float,
        default=1.0,
        help="predict no answer where na_probs is above this (default: 1.0)",
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
    """Returns the metrics of a prediction file; reports questions without a prediction on stderr.

    Raises:
      DataError: a file cannot be used or does not match the others.
    """
    dataset = read_dataset(data)
    for line in dataset.report:
        print(f"{data}: {line}", file=sys.stderr)
    if not dataset.is_labeled:
        raise DataError(f"{data} has no answers to score against; name a labeled file")
    if na_probs and not dataset.unanswerable:
        raise DataError(f"--na_probs is for SQuAD 2.0, but every question of {data} has an answer")
    # In SQuAD 1.1 a missing prediction is allowed and scores 0.
    texts = _by_question(predictions, dataset, str, "a string", complete=dataset.unanswerable)
    if missing := len(dataset.questions) - len(texts):
        print(f"{missing:,} questions have no prediction and score 0", file=sys.stderr)
    probs = None
    if na_probs:
        probs = _by_question(na_probs, dataset, (int, float), "a number", complete=True)
        for key, value in probs.items():
            if not math.isfinite(value):
                raise DataError(
                    f"{na_probs}: question {key!r} has {value}, expected a finite number"
                )
    return evaluate(
        dataset.gold_answers(),
        {key: LONE_SURROGATE.sub(REPLACEMENT, text) for key, text in texts.items()},
        unanswerable=dataset.unanswerable,
        na_probs=probs,
        na_threshold=na_threshold,
    )


def _by_question(
    path: pathlib.Path, dataset: Dataset, kind, expected: str, *, complete: bool
) -> dict:
    """Reads {question id: value of type `kind`}; if `complete`, no id may be missing."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path} is {shown(found)}, not an object {{question id: {expected}}}")
    ids = {question.id for question in dataset.questions}
    if unknown := [key for key in found if key not in ids]:
        raise DataError(
            f"{path} has {len(unknown):,} question ids that {dataset.name} lacks, such as "
            f"{unknown[0]!r}; give the data set that was predicted"
        )
    if complete and (missing := [q.id for q in dataset.questions if q.id not in found]):
        raise DataError(
            f"{path} lacks {len(missing):,} of the {len(ids):,} question ids of {dataset.name}, "
            f"such as {missing[0]!r}"
        )
    for key, value in found.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{path}: question {key!r} has {shown(value)}, expected {expected}")
    return found


if __name__ == "__main__":
    command.run(main)
