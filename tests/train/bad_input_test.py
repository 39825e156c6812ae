"""Each mistake a user can make ends in one sentence, before anything is compiled or overwritten."""

import json
import pathlib
import resource
import subprocess
import sys

import jax.numpy as jnp
import pytest

from sibert_jax.checkpoint import CheckpointError
from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError, TrainingError
from sibert_jax.train import build, loop

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.head", "both", "task.head='both' is unknown"),
        ("task.mask_rate", 1.5, "task.mask_rate=1.5 must lie between 0 and 1"),
        ("task.nsp", True, "task.nsp=True needs model.num_segments=2"),
        ("task.head", "tied", "no longer scale invariant"),
        ("task.head", "normalized", 'goes with "recipe"'),
        ("model.arch", "gpt", "model.arch='gpt' is unknown"),
        ("model.num_heads", 3, "model.width=16 does not divide by model.num_heads=3"),
        ("model.dtype", "float16", "float16"),
        ("model.dropout", 1.0, r"model.dropout=1.0 must lie in \[0, 1\)"),
        ("data.seq_len", 64, "data.seq_len=64 must lie between 8 and model.max_len=32"),
        ("optim.name", "sgdd", "optim.name='sgdd' is unknown"),
        ("optim.schedule", "cosin", "optim.schedule='cosin' is unknown"),
        ("optim.learning_rate", 0.1, "sets both η and λ"),
        ("optim.eta_lambda", 0.0, "give learning_rate > 0"),
        ("optim.clip_factor", 1.0, "optim.clip_factor=1.0 must be above 1"),
        ("optim.warmup_steps", 12, r"optim.warmup_steps=12 and train.num_steps=12 do not fit"),
        ("optim.head.warmup_steps", 50, r"optim.head.warmup_steps=50 and train.num_steps=12"),
        ("train.num_steps", 0, "train.num_steps=0 must be at least 1"),
        ("init_scale", 0.0, "init_scale=0.0 must be positive"),
    ],
)
def test_a_value_that_cannot_work_is_named(config, key, value, message):
    *sections, name = key.split(".")
    target = config
    for section in sections:
        target = target[section]
    target[name] = value
    with pytest.raises(ConfigError, match=message):
        build.run_config(config)


def test_a_missing_and_a_superfluous_key_are_named(config):
    del config.optim.b1
    with pytest.raises(ConfigError, match="optim.b1 is missing"):
        build.run_config(config)
    config.optim.b1 = 0.9
    config.optim.momentum = 0.9
    with pytest.raises(ConfigError, match="optim.momentum is not a key"):
        build.run_config(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "nowhere.txt", "nowhere.txt"),
        ("vocab", "vocab.txt", "vocab.txt"),
    ],
)
def test_missing_files_are_named(train_one, config, tmp_path, key, value, message):
    config.data[key] = str(tmp_path / value)
    with pytest.raises(DataError, match=message):
        train_one(config, tmp_path / "run")


def test_a_directory_that_is_no_run_is_left_alone(train_one, config, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and has no config.json"):
        train_one(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(train_one, config, tmp_path):
    config.optim.name = "adamw"
    config.optim.eta_lambda = 0.0
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "warmup_stable_decay"
    config.model.arch = "bert"
    config.train.num_steps = 12
    config.train.log_every_steps = 1
    spoil = ScheduleThatExplodes(after=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.optim, "make_schedule", lambda *_, **__: spoil)
        with pytest.raises(TrainingError, match=r"at step \d+ is not finite.*from step 5"):
            train_one(config, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/5").is_dir()
    assert not (tmp_path / "run/checkpoints/10").exists()
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) <= 9


class ScheduleThatExplodes:
    def __init__(self, after):
        self.after = after

    def __call__(self, count):
        return jnp.where(count < self.after, 1e-3, jnp.inf)


def test_a_full_disk_ends_the_run_with_the_checkpoints_that_are_there(train_one, config, tmp_path):
    directory = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = loop.Session.save

    def save(self, checkpoints, state, step):
        if step > 5:
            checkpoints.wait()  # from here on no file may grow beyond 10 kB, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        original(self, checkpoints, state, step)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.Session, "save", save)
            wrong = r"^the checkpoint at step 10 could not be written [^\n]*: \[5\]; [^\n]*$"
            with pytest.raises(CheckpointError, match=wrong) as error:
                train_one(config, directory)
            assert len(str(error.value)) < 1500  # not the whole of tensorstore's settings
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (directory / "checkpoints/5").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.modle.width=3"], "the config has no key 'modle'; did you mean 'model'?"),
        (["--config=nowhere.py"], "there is no file 'nowhere.py'"),
        (["--config.optim.clip_factor=0.5"], "optim.clip_factor=0.5 must be above 1"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(arguments, message, tmp_path):
    command = [sys.executable, "-m", "sibert_jax.main", "--config=configs/demo.py"]
    command += [f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
