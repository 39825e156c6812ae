"""Published results are JSON lines, and experiments/collect.py writes them."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_a_line_for_each_run(tmp_path):
    keys = ("git_commit", "git_dirty", "versions", "device_kind", "devices", "learning_rate")
    described = dict.fromkeys((*keys, "weight_decay", "data_fingerprint"), "something")
    config = {"seed": 3, "data": {"path": "/data/a.txt,/data/b.txt", "valid_path": ""}}
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "eval/loss": 1.5}]
    for name in ("first", "second"):
        run = tmp_path / name
        run.mkdir()
        (run / "run.json").write_text(json.dumps(described))
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, ROOT / "experiments/collect.py", f"{tmp_path}/first/", run]
    found = [json.loads(line) for line in subprocess.check_output(command).splitlines()]
    config["data"]["path"] = "a.txt,b.txt"
    wanted = described | {"config": config, "eval": rows[1:]}
    assert found == [{"run": "first"} | wanted, {"run": "second"} | wanted]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("experiments/*/results.json*")), ids=lambda path: path.parent.name
)
def test_published_results_are_a_json_object_a_line(path):
    assert path.suffix == ".jsonl"
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())
