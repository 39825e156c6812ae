"""What a run measured, without what only the clock decides."""

import json
import pathlib

BY_THE_CLOCK = ("perf/", "goodput/")


def rows(directory: pathlib.Path) -> list[dict]:
    """All rows of a workdir's metrics, but for speed and wall time."""
    loaded = [json.loads(row) for row in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(BY_THE_CLOCK)} for row in loaded]
