"""The directories that a run may take, and what a start that came to no step leaves there."""

import json
import os
import threading
import time

import pytest

from sibert_jax.checkpoint import CheckpointError
from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.train.workdir import Claim


def contents(directory) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else ""
        for path in sorted(directory.rglob("*"))
    }


def write(directory, files: dict[str, str]):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.path", "nowhere.txt", "nowhere.txt"),
        ("data.vocab", "short.txt", "short.txt"),  # of another size than the model's
        ("data.valid_fraction", 1e-9, "valid_fraction"),  # which tokenizing finds out
        ("data.cache_dir", "/proc/nowhere", "data.cache_dir"),
        ("checkpoint.init_from", "nowhere", "checkpoint.init_from=nowhere"),
        ("optim.other.pattern", "encodr", "matches no parameter"),
        ("optim.head.warmup_steps", 12, "optim.head.warmup_steps=12"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(
    train_one, config, tmp_path, monkeypatch, key, value, message
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"short.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nand\n"})
    write(tmp_path, {"old/lock": "pid 1", "old/goodput.json": "{}"})
    config.update_from_flattened_dict({key: value})
    before = contents(tmp_path)
    for directory in ("old", "deep/er/run"):
        with pytest.raises((ConfigError, DataError, CheckpointError), match=message):
            train_one(config, tmp_path / directory)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if not name.startswith("old/"))


def test_results_without_checkpoints_are_put_aside(config, tmp_path):
    killed = {"config.json": json.dumps(config.to_dict()), "checkpoints/5.partial/params": "half"}
    write(tmp_path, killed | {"metrics.jsonl": '{"step": 12}\n', "results.json": "{}"})
    said = []
    with Claim(tmp_path, config) as claim:
        claim.begin(0, said.append)
    assert f"{tmp_path} has no checkpoint, so the run starts at step 0; the results" in said[0]
    assert (tmp_path / "metrics.old.jsonl").read_text() == '{"step": 12}\n'
    assert (tmp_path / "results.old.json").read_text() == "{}"
    assert not (tmp_path / "results.json").exists()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.tex": "precious"}, "is not empty and has no config.json"),
        ({"config.json": '{"model_type": "bert"}'}, "is not empty and has no config.json"),
        ({"lock": "of my own", "vocab.txt": "and"}, "is not empty and has no config.json"),
        ({"checkpoints/5/params": ""}, "config.json is missing"),
        ({"checkpoints/5/params": "", "config.json": "{"}, "config.json cannot be read"),
        ({"checkpoints/5/params": "", "config.json": "{}"}, "config.json lacks 'model'"),
    ],
)
def test_what_is_no_run_is_refused_and_left_alone(train_one, config, tmp_path, files, message):
    write(tmp_path, files)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=message):
        train_one(config, tmp_path)
    with pytest.raises(ConfigError, match="is a file; name a directory"):
        Claim(tmp_path / next(iter(files)), config)
    assert contents(tmp_path) == before


def test_a_workdir_in_use_is_refused_and_free_afterwards(config, tmp_path):
    directory = tmp_path / "run"
    with Claim(directory, config) as claim:
        claim.begin(0, print)
        before = contents(directory)
        config.checkpoint.keep = 7
        with pytest.raises(ConfigError, match=rf"in use by another run \(pid {os.getpid()} on "):
            Claim(directory, config)
        assert contents(directory) == before
    Claim(directory, config).close()
    assert contents(directory) == before


def test_of_starts_at_one_moment_one_has_the_directory(config, tmp_path):
    directory, inside, most, refused = tmp_path / "run", [], [], []

    def start():
        for _ in range(20):
            try:
                with Claim(directory, config):  # and fail: the directory is gone again
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
            except ConfigError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert all("in use by another run" in sentence for sentence in refused)
    assert len(most) + len(refused) == 80
    assert not list(tmp_path.rglob("lock"))
