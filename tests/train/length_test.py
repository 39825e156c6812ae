"""A run that continues with another length, or with other windows of logged means."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.train.workdir import check_free
from tests.train.metrics_rows import rows


def constant(config, num_steps):
    """A run with a window that does not divide its length."""
    config.train.num_steps = num_steps
    config.train.log_every_steps, config.train.eval_every_steps = 4, 0
    return config


@pytest.fixture
def finished(plain, train_one, tmp_path_factory, cache):
    """A run of 6 steps, in a folder that may be changed."""
    kept = cache / "finished"
    if not kept.exists():
        train_one(constant(plain, 6), kept)
    return shutil.copytree(kept, tmp_path_factory.mktemp("runs") / "run")


def means(directory) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in rows(directory) if "train/loss" in row}


@pytest.mark.slow
def test_extended_it_is_the_run_of_the_final_length(plain, train_one, finished, tmp_path, capfd):
    straight = train_one(constant(plain, 12), tmp_path)
    capfd.readouterr()
    extended = train_one(plain, finished)
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
    ],
)
def test_means_are_over_the_steps_since_the_last_row(
    plain, train_one, finished, tmp_path, newest, every, windows
):
    shutil.rmtree(finished / f"checkpoints/{11 - newest}")
    constant(plain, 12)
    plain.train.log_every_steps = every
    train_one(plain, finished)
    plain.train.log_every_steps = 1
    train_one(plain, tmp_path)
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
        ("cosine", "constant", False, 24, r"num_steps=12, now it is 24.*\(optim.schedule='co"),
        ("constant", "linear", False, 24, r"\(optim.head.schedule='linear'\).*train.extend=True"),
        ("piecewise", "linear", False, 8, r"optim.schedule='piecewise', optim.head.schedule='lin"),
        ("constant", "constant", True, 5, "gives 5 steps, but the newest checkpoint is at step 6"),
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


MAY_CHANGE = {"train.log_every_steps": 7, "train.eval_every_steps": 7, "train.eval_batches": 1}
MAY_CHANGE |= {"train.on_bad_step": "skip", "checkpoint.every_steps": 7, "checkpoint.keep": 1}
MAY_CHANGE |= {"mesh.fsdp": 2, "distributed.heartbeat_secs": 7, "model.remat": True}
MAY_CHANGE |= {"data.cache_dir": "elsewhere"}
MAY_NOT = {"seed": 1, "task.mask_rate": 0.2, "model.dropout": 0.1, "data.seq_len": 16}
MAY_NOT |= {"optim.options": "x=1", "train.microbatches": 2}


def test_only_what_changes_no_number_may_change(config, tmp_path):
    recorded(tmp_path, config)
    config.update_from_flattened_dict(MAY_CHANGE)
    check_free(tmp_path, config)
    config.update_from_flattened_dict(MAY_NOT)
    with pytest.raises(ConfigError) as error:
        check_free(tmp_path, config)
    named = re.findall(r"(\w[\w.]*): [^;]* -> ", str(error.value))
    assert sorted(named) == sorted(MAY_NOT)


def test_a_schedule_that_no_leaf_follows_does_not_count(plain, tmp_path):
    recorded(tmp_path, plain)
    plain.train.num_steps = 24
    check_free(tmp_path, plain)
