"""A run that continues with another length, or with other windows of logged means."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.optim import make_schedule
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import describe_new_length
from sibert_jax.train.workdir import check_free
from tests.train.metrics_rows import rows


def constant(config, num_steps):
    """A run at a constant rate, with a window that does not divide its length."""
    config.model.arch, config.optim.name = "bert", "adamw"  # compiles in half the time of SIBERT
    config.optim.eta_lambda, config.optim.learning_rate = 0.0, 1e-3
    config.optim.schedule = "constant"
    config.train.num_steps = num_steps
    config.train.log_every_steps, config.train.eval_every_steps = 4, 0
    return config


@pytest.fixture
def finished(config, train_one, tmp_path_factory, cache):
    """A run of 6 steps, in a folder that may be changed."""
    kept = cache / "finished"
    config.optim.head.schedule = "constant"
    if not kept.exists():
        train_one(constant(config, 6), kept)
    return shutil.copytree(kept, tmp_path_factory.mktemp("runs") / "run")


def means(directory) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in rows(directory) if "train/loss" in row}


@pytest.mark.slow
def test_extended_it_is_the_run_of_the_final_length(config, train_one, finished, tmp_path, capfd):
    straight = train_one(constant(config, 12), tmp_path)
    capfd.readouterr()
    extended = train_one(config, finished)
    said = capfd.readouterr().err
    assert "the run of 6 steps becomes one of 12: η at step 6 stays 0.001 (constant)" in said
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((straight, extended)))
    at_the_old_end = [row for row in rows(finished) if row["step"] == 6]
    assert len(at_the_old_end) == 2  # the window so far and an evaluation
    assert [row for row in rows(finished) if row["step"] != 6] == rows(tmp_path)
    results = json.loads((finished / "results.json").read_text())
    assert results["step"] == results["last"]["step"] == 12
    evaluations = [row for row in rows(finished) if "eval/mlm_loss" in row]
    assert results["best"] == min(evaluations, key=lambda row: row["eval/mlm_loss"])


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
    shutil.rmtree(finished / f"checkpoints/{11 - newest}")
    constant(config, 12)
    config.train.log_every_steps = every
    train_one(config, finished)
    config.train.log_every_steps = 1
    train_one(config, tmp_path)
    single, found = means(tmp_path), means(finished)
    for step, (first, last) in windows.items():
        expected = np.mean([single[i] for i in range(first, last + 1)])
        assert found[step] == pytest.approx(expected, rel=1e-6)
    assert [step for step in found if step > newest] == list(windows)


def recorded(directory, config, newest=6):
    (directory / f"checkpoints/{newest}").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))


@pytest.mark.parametrize(
    ("schedule", "head", "extend", "num_steps", "message"),
    [
        ("constant", "constant", False, 24, None),
        ("cosine", "linear", True, 24, None),
        ("cosine", "linear", True, 8, None),
        ("cosine", "linear", False, 12, None),
        ("cosine", "constant", False, 24, r"num_steps=12, now it is 24.*\(optim.schedule='co"),
        ("constant", "linear", False, 24, r"\(optim.head.schedule='linear'\).*train.extend=True"),
        ("piecewise", "linear", False, 8, r"optim.schedule='piecewise', optim.head.schedule='lin"),
        ("constant", "constant", True, 5, "says 5 steps, and the newest checkpoint is of step 6"),
        ("cosine", "linear", False, 5, "says 5 steps, and the newest checkpoint is of step 6"),
    ],
)
def test_another_length_is_asked_for_where_schedules_depend_on_it(
    config, tmp_path, schedule, head, extend, num_steps, message
):
    config.optim.schedule, config.optim.head.schedule = schedule, head
    recorded(tmp_path, config)
    config.train.num_steps, config.train.extend = num_steps, extend
    if message is None:
        check_free(tmp_path, config)
        return
    with pytest.raises(ConfigError, match=message) as error:
        check_free(tmp_path, config)
    assert "Nothing was changed." in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "may_change"),
    [
        ("train.log_every_steps", 7, True),
        ("train.eval_every_steps", 7, True),
        ("train.eval_batches", 1, True),
        ("train.on_bad_step", "skip", True),
        ("checkpoint.every_steps", 7, True),
        ("checkpoint.keep", 1, True),
        ("mesh.fsdp", 2, True),
        ("distributed.heartbeat_secs", 7, True),
        ("model.remat", True, True),
        ("data.cache_dir", "elsewhere", True),
        ("seed", 1, False),
        ("task.mask_rate", 0.2, False),
        ("model.dropout", 0.1, False),
        ("data.seq_len", 16, False),
        ("optim.options", "x=1", False),
        ("train.microbatches", 2, False),
    ],
)
def test_only_what_changes_no_number_may_change(config, tmp_path, key, value, may_change):
    recorded(tmp_path, config)
    config.update_from_flattened_dict({key: value})
    if may_change:
        check_free(tmp_path, config)
        return
    with pytest.raises(ConfigError, match=f"{key}: .* -> {value}"):
        check_free(tmp_path, config)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_schedule_that_no_leaf_follows_does_not_count(config, tmp_path, name):
    config.optim.name, config.optim.schedule = name, "constant"
    config.optim.head.name = "same"
    recorded(tmp_path, config)
    config.train.num_steps = 24
    check_free(tmp_path, config)


def test_what_becomes_of_the_learning_rate_is_said(config):
    config.train.num_steps, config.optim.head.warmup_steps = 24, 4
    run = run_config(resolve(config))
    run = dataclasses.replace(run, optim=run.optim.with_rates(0.5, 0.1))
    before = dataclasses.replace(run, train=dataclasses.replace(run.train, num_steps=12))
    rates = [
        float(make_schedule(name, peak_value=peak, num_steps=num_steps, warmup_steps=warmup)(9))
        for name, peak, warmup in (("cosine", 0.5, 0), ("linear", 4e-3, 4))
        for num_steps in (12, 24)
    ]
    a, b, c, d = (f"{rate:.3g}" for rate in rates)
    assert describe_new_length(run, before, step=10, updates=9) == (
        f"the run of 12 steps becomes one of 24: η at step 10 goes from {a} to {b} (cosine), that "
        f"of the head goes from {c} to {d} (linear)"
    )
    assert describe_new_length(run, run, step=10, updates=9) == ""
