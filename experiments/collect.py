"""Prints a JSON line for each run: python experiments/collect.py RUN... > results.jsonl.

It holds the run's name, commit and versions, device, settings, and rows with evaluations.
"""

import json
import pathlib
import sys


def collect(workdir: pathlib.Path) -> dict:
    """The results of one run, from the files in its workdir."""
    described = json.loads((workdir / "run.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    config = json.loads((workdir / "config.json").read_text())
    for key in ("path", "valid_path"):  # the files' names, not where they lay
        paths = config["data"][key].split(",")
        config["data"][key] = ",".join(pathlib.PurePath(path).name for path in paths)
    kept = ("git_commit", "git_dirty", "versions", "device_kind", "devices", "learning_rate")
    return {
        "run": workdir.name,
        **{name: described[name] for name in (*kept, "weight_decay", "data_fingerprint")},
        "config": config,
        "eval": [row for row in rows if any(name.startswith("eval/") for name in row)],
    }


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps(collect(pathlib.Path(path))))
