"""A sweep runs what is left, survives a run that diverges, and tabulates over the seeds."""

import csv
import json
import math
import os
import pathlib
import pydoc_data.topics
import signal
import subprocess
import sys
import time

import pytest

from sibert_jax.config_file import load_config
from sibert_jax.errors import ConfigError
from sibert_jax.report.sweep_table import Outcome, draw, markdown, summarise
from sibert_jax.tools.sweep_runs import read_sweep

ROOT = pathlib.Path(__file__).parents[1]
BERT = ROOT / "configs/mini.py:bert"
SWEEP = """
METRIC = "mlm_accuracy"

def sweep():
    for seed in {seeds}:
        yield {{"optim.learning_rate": 1e-3, "seed": seed}}
    yield {{"optim.learning_rate": 1e38, "seed": 0}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sweep")
    text = "\n\n".join(" ".join(topic.split()) for topic in pydoc_data.topics.topics.values())
    (folder / "text.txt").write_text(text[:150_000])
    values = {
        "model.vocab_size": 300,
        "model.width": 16,
        "model.ffn_width": 32,
        "model.depth": 1,
        "data.path": folder / "text.txt",
        "data.valid_path": "",
        "data.valid_fraction": 0.2,
        "data.cache_dir": folder / "cache",
        "data.seq_len": 16,
        "optim.warmup_steps": 0,
        "train.num_steps": 6,
        "train.global_batch_size": 4,
        "train.eval_batches": 1,
        "train.log_every_steps": 2,
        "train.compilation_cache_dir": "",
    }
    return [f"--config.{key}={value}" for key, value in values.items()]


def start(sweep: pathlib.Path, workdir: pathlib.Path, tiny: list[str], *more: str):
    command = [sys.executable, "-m", "sibert_jax.sweep", f"--config={BERT}", f"--sweep={sweep}"]
    command += [f"--workdir={workdir}", *tiny, *more]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **options)


def names(*settings) -> list[str]:
    return [f"optim.learning_rate={rate},seed={seed}" for rate, seed in settings]


@pytest.mark.slow
def test_two_processes_share_the_runs_and_both_count_the_one_that_diverges(tmp_path, tiny):
    sweep, workdir = tmp_path / "sweep.py", tmp_path / "runs"
    sweep.write_text(SWEEP.format(seeds=(0,)))
    both = [start(sweep, workdir, tiny), start(sweep, workdir, tiny)]
    messages = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    for name in names((0.001, 0), (1e38, 0)):
        assert sum(message.count(f"{name}: started") for message in messages) == 1
    statuses = [json.loads(p.read_text())["status"] for p in sorted(workdir.glob("results/*"))]
    assert statuses == ["finished", "diverged"]


@pytest.mark.slow
def test_stopped_and_started_again_it_goes_on_and_tabulates(tmp_path, tiny):
    sweep, workdir = tmp_path / "sweep.py", tmp_path / "runs"
    sweep.write_text(SWEEP.format(seeds=(0, 1)))
    first = start(sweep, workdir, tiny)
    while not list(workdir.glob("runs/*/config.json")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, message = first.communicate()
    assert first.returncode == 0
    assert "run again to resume" in message

    second = start(sweep, workdir, tiny, "--workers=2")
    _, message = second.communicate()
    assert second.returncode == 0, message
    third = start(sweep, workdir, tiny)
    _, message = third.communicate()
    assert "started" not in message
    with (workdir / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["diverged"] for row in rows] == ["0", "1"]
    evaluations = [
        json.loads((workdir / f"runs/{name}/metrics.jsonl").read_text().splitlines()[-1])
        for name in names((0.001, 0), (0.001, 1))
    ]
    accuracies = [row["eval/mlm_accuracy"] for row in evaluations]
    assert float(rows[0]["mean"]) == pytest.approx(sum(accuracies) / 2)
    assert (workdir / "sweep.png").stat().st_size > 5_000


def test_the_table_has_median_mean_spread_and_best():
    values = (0.5, 0.7, 0.9, 0.8)
    outcomes = [Outcome({"lr": 0.1, "seed": i}, "f1", v) for i, v in enumerate(values)]
    outcomes += [Outcome({"lr": 1.0, "seed": 0}, "", None)]
    good, bad = summarise(outcomes)
    assert (good.median, good.best, good.diverged) == (0.75, 0.9, 0)
    assert good._replace(metric="mlm_loss").best == 0.5
    assert good.mean == pytest.approx(0.725)
    # s² = Σ(x − mean)²/(n − 1) = (0.050625 + 0.000625 + 0.030625 + 0.005625)/3
    assert good.sd == pytest.approx(math.sqrt(0.0875 / 3))
    assert (bad.values, bad.diverged) == ([], 1)
    wanted = "| 0.1 | f1 | 4 | **0.7500** | 0.7250 ± 0.1708 | 0.9000 | 0 |"
    assert wanted in markdown([good, bad])
    alone = good._replace(values=[0.5])
    assert "| 0.1 | f1 | 1 | **0.5000** | 0.5000 | 0.5000 | 0 |" in markdown([alone])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"has no function sweep\(\)"),
        ("def sweep():\n    yield from ()", "yields nothing"),
        ("def sweep():\n    yield {'optim.lerning_rate': 1.0}", "did you mean 'optim.learning"),
        ("def sweep():\n    yield {'model.num_heads': 3}", "model.width=128 is not divisible by"),
        ("def sweep():\n    yield {'seed': 'x'}", "seed"),
        ("def sweep():\n    return [{'seed': 1}] * 2", "yields seed=1 twice"),
        ("def sweep():\n    return 1 / 0", "ZeroDivisionError"),
        ("def sweep():\n    yield {'config': 'nowhere.py'}", "nowhere.py"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(text, message, tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_sweep(str(path), str(BERT), ())


def test_the_panel_of_a_point_gathers_rows_and_is_no_key_of_the_config(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text("def sweep():\n    yield {'panel': 'a task', 'seed': 3}")
    _, (point,) = read_sweep(str(path), str(BERT), ("--config.seed=1", "--config.init_scale=2.0"))
    assert point.name == "seed=3"
    file, *overrides = point.arguments
    config = load_config(file.removeprefix("--config="), overrides)
    assert (config.seed, config.init_scale) == (3, 2.0)  # what the point says wins
    arms = [{"panel": "a task", "config": name} for name in ("folder/x.py", "folder/y.py")]
    outcomes = [Outcome(arm, "f1", value) for arm, value in zip(arms, (0.5, 0.6))]
    rows = summarise(outcomes)
    assert [row.panel for row in rows] == ["a task", "a task"]
    assert markdown(rows).count("**") == 2  # one of the two is the best
    (axis,) = draw(rows).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["config=x.py", "config=y.py"]
    without = [Outcome({"config": arm["config"]}, "f1", 0.5) for arm in arms]
    assert [row.panel for row in summarise(without)] == ["folder/x.py", "folder/y.py"]
