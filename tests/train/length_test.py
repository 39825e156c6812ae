"""A run that goes on with another length, or with other windows of logged means."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.optim import make_schedule
from sibert_jax.train import build, length
from sibert_jax.train.claim import Claim
from tests.train.metrics_rows import rows


def constant(config, num_steps):
    """A run at a constant rate, with a window that does not divide its length."""
    config.model.arch, config.optim.name = "bert", "adamw"  # compiles in half the time of SIBERT
    config.optim.eta_lambda, config.optim.learning_rate = 0.0, 1e-3
    config.optim.schedule = "constant"
    config.train.num_steps = num_steps
    config.train.log_every_steps, config.train.eval_every_steps = 4, 0
    config.checkpoint.every_steps = 5
    return config


@pytest.fixture
def finished(config, train_one, tmp_path_factory, cache):
    """A run of 6 steps, in a folder that may be changed."""
    kept = cache / "finished"
    if not kept.exists():
        train_one(constant(config, 6), kept)
    return shutil.copytree(kept, tmp_path_factory.mktemp("runs") / "run")


def means(directory) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in rows(directory) if "train/loss" in row}


@pytest.mark.slow
def test_an_extended_run_is_the_one_that_had_the_final_length_from_the_start(
    config, train_one, finished, tmp_path, capfd
):
    straight = train_one(constant(config, 12), tmp_path)
    capfd.readouterr()
    extended = train_one(config, finished)
    said = capfd.readouterr().err
    assert "the run of 6 steps becomes one of 12: η at step 6 stays 0.001 (constant)\n" in said
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((straight, extended)))
    at_the_old_end = [row for row in rows(finished) if row["step"] == 6]
    assert len(at_the_old_end) == 2  # the window so far and an evaluation
    assert [row for row in rows(finished) if row["step"] != 6] == rows(tmp_path)
    results = json.loads((finished / "results.json").read_text())
    assert results["step"] == results["last"]["step"] == 12
    evaluations = [row for row in rows(finished) if "eval/mlm_loss" in row]
    best = min(evaluations, key=lambda row: row["eval/mlm_loss"])
    assert results["best"] == best


@pytest.mark.slow
@pytest.mark.parametrize(
    ("newest", "every", "windows"),
    [
        (6, 5, {10: (7, 10), 12: (11, 12)}),  # the row of step 6 ended a window
        (5, 3, {6: (5, 6), 9: (7, 9), 12: (10, 12)}),  # that of step 5 began after the row of 4
        (5, 4, {8: (5, 8), 12: (9, 12)}),
    ],
)
def test_means_are_over_the_steps_since_the_last_row(
    config, train_one, finished, tmp_path, newest, every, windows
):
    config.train.log_every_steps = 1
    for step in {5, 6} - {newest}:
        shutil.rmtree(finished / f"checkpoints/{step}")
    constant(config, 12)
    config.train.log_every_steps = every
    train_one(config, finished)
    single = cached_single_steps(config, train_one, finished.parents[1])
    found = means(finished)
    for step, (first, last) in windows.items():
        expected = np.mean([single[i] for i in range(first, last + 1)])
        assert found[step] == pytest.approx(expected, rel=1e-6)
    assert [step for step in found if step > newest] == list(windows)


def cached_single_steps(config, train_one, folder) -> dict[int, float]:
    """The loss of each step."""
    directory = folder / "single"
    if not directory.exists():
        config.train.log_every_steps = 1
        train_one(config, directory)
    return means(directory)


def recorded(directory, config, newest=6):
    (directory / f"checkpoints/{newest}").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))


@pytest.mark.parametrize(
    ("schedule", "head", "word", "num_steps", "message"),
    [
        ("constant", "constant", False, 24, None),
        ("cosine", "linear", True, 24, None),
        ("cosine", "linear", True, 8, None),
        ("cosine", "linear", False, 12, None),
        (
            "cosine",
            "constant",
            False,
            24,
            r"num_steps=12, now it is 24.*\(optim.schedule='co",
        ),
        ("constant", "linear", False, 24, r"\(optim.head.schedule='linear'\).*train.extend=True"),
        ("piecewise", "linear", False, 8, r"optim.schedule='piecewise', optim.head.schedule='lin"),
        ("constant", "constant", True, 5, "says 5 steps, and the newest checkpoint is of step 6"),
        ("cosine", "linear", False, 5, "says 5 steps, and the newest checkpoint is of step 6"),
    ],
)
def test_another_length_needs_a_word_where_the_schedule_depends_on_it(
    config, tmp_path, schedule, head, word, num_steps, message
):
    config.optim.schedule, config.optim.head.schedule = schedule, head
    recorded(tmp_path, config)
    config.train.num_steps, config.train.extend = num_steps, word
    if message is None:
        Claim(tmp_path, config).close()
        return
    with pytest.raises(ConfigError, match=message) as error:
        Claim(tmp_path, config)
    assert "Nothing was changed." in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.log_every_steps", 7),
        ("train.eval_every_steps", 7),
        ("train.eval_batches", 1),
        ("checkpoint.every_steps", 7),
        ("checkpoint.keep", 1),
    ],
)
def test_intervals_may_change(config, tmp_path, key, value):
    recorded(tmp_path, config)
    section, name = key.split(".")
    config[section][name] = value
    Claim(tmp_path, config).close()


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_the_schedule_of_a_head_that_has_no_optimizer_is_not_asked_for(config, tmp_path, name):
    config.optim.name, config.optim.schedule = name, "constant"
    recorded(tmp_path, config)
    config.train.num_steps = 24
    Claim(tmp_path, config).close()


def test_what_becomes_of_the_learning_rate_is_told(config):
    config.train.num_steps, config.optim.head.warmup_steps = 24, 4
    run = build.run_config(config)
    before = dataclasses.asdict(run)
    before["train"]["num_steps"] = 12
    rates = [
        float(make_schedule(name, peak_value=peak, num_steps=num_steps, warmup_steps=warmup)(9))
        for name, peak, warmup in (("cosine", 0.5, 0), ("linear", 4e-3, 4))
        for num_steps in (12, 24)
    ]
    a, b, c, d = (f"{rate:.3g}" for rate in rates)
    assert length.told(run, before, peak=0.5, step=10, updates=9) == (
        f"the run of 12 steps becomes one of 24: η at step 10 goes from {a} to {b} (cosine), that "
        f"of the head goes from {c} to {d} (linear)"
    )
    before["train"]["num_steps"] = 24
    assert length.told(run, before, peak=0.5, step=10, updates=9) == ""
