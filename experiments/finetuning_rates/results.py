"""Prints a JSON line for each finished run of a sweep.

python -m experiments.finetuning_rates.results runs/rates
"""

import json
import pathlib
import sys


def main(directory: pathlib.Path) -> None:
    """In the order of task, encoder and rate."""
    rows = []
    for path in (directory / "results").glob("*.json"):
        result = json.loads(path.read_text())
        task, arch = result["overrides"]["panel"].split(", ")
        last = result["results"]["last"]
        row = {"task": task, "arch": arch, "rate": result["overrides"]["optim.learning_rate"]}
        row |= {"steps": last["step"], "loss": round(last["eval/loss"], 4)}
        rows.append(row | {"accuracy": round(last["eval/accuracy"], 4)})
    for row in sorted(rows, key=lambda row: (row["task"], row["arch"], row["rate"])):
        print(json.dumps(row))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
