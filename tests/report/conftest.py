"""Run folders as a training run would leave them."""

import json
import math

import pytest


@pytest.fixture
def short():
    """Rows of training and evaluation on smooth curves."""
    rows = []
    for step in range(10, 201, 10):
        done = step / 200
        rate = 0.33 * 0.5 * (1 + math.cos(math.pi * 0.9 * done))
        norm = 60 - 5 * done
        row = {
            "train/loss": 6 + 3 * math.exp(-3 * done),
            "train/mlm_loss": 6 + 3 * math.exp(-3 * done),
            "optim/grad_norm": 50.0,
            "optim/param_norm": norm,
            "optim/relative_grad_norm": 50 / norm,
            "optim/clip_threshold": math.sqrt(0.08 / rate),
            "optim/clipped": 0.1 * (1 - done),
            "optim/rotation": math.sqrt(0.02 * rate),
            "optim/equilibrium_norm": norm + 1,
            "optim/predicted_rotation": math.sqrt(0.021 * rate),
            "optim/learning_rate": rate,
            "optim/weight_decay": 0.01,
            "model/dead_attention_rows": 0.012 * math.exp(-done * 2),
            "perf/tokens_per_second": 5200.0,
        }
        rows.append({"step": step, **row})
        if step % 50 == 0:
            row = {"eval/mlm_loss": 6.1 + 3 * math.exp(-3 * done), "eval/mlm_accuracy": 0.4 * done}
            rows.append({"step": step, **row})
    return rows


def resolved_config(**overrides):
    """A resolved nested configuration; in `overrides`, `__` stands for the dot of a key."""
    config = {
        "init_scale": 1.0,
        "task": {"name": "pretraining"},
        "model": {"arch": "sibert", "width": 128, "depth": 2},
        "data": {"source": "text", "seq_len": 128},
        "optim": {
            "name": "scale_invariant_sgd",
            "learning_rate": 0.33,
            "weight_decay": 0.01,
            "clip_factor": 4.0,
        },
        "train": {"num_steps": 1200, "global_batch_size": 32},
    }
    for key, value in overrides.items():
        group, _, leaf = key.rpartition("__")
        (config[group] if group else config)[leaf] = value
    return config


@pytest.fixture
def config():
    return resolved_config


@pytest.fixture
def write_run(tmp_path):
    """Write a run folder: rows (or a string, verbatim) and a configuration."""

    def write(name, rows, config=None):
        directory = tmp_path / name
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(config or resolved_config()))
        (directory / "run.json").write_text(json.dumps({"git_commit": "0123abc"}))
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (directory / "metrics.jsonl").write_text(text)
        return directory

    return write
