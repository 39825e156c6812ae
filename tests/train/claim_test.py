"""Which directories a run may take, and what it leaves of a start that came to no step."""

import json
import os
import threading
import time

import pytest

from sibert_jax.checkpoint import CheckpointError
from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.train.claim import Claim
from tests.train.metrics_rows import rows

EXPECTED = (ConfigError, DataError, CheckpointError)


def contents(directory) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else ""
        for path in sorted(directory.rglob("*"))
    }


def write(directory, **files):
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def leave(directory, config, **files):
    """What a start leaves that was killed with kill -9 before its first checkpoint."""
    write(
        directory,
        lock="pid 1 on elsewhere\n",
        goodput_dot_json="{}",
        config_dot_json=json.dumps(config.to_dict()),
        checkpoints__5_dot_partial__params="half of one",
        **files,
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.path", "nowhere.txt"),
        ("data.vocab", "short.txt"),  # of another size than the model's
        ("data.vocab", "nowhere.txt"),
        ("data.valid_fraction", 1e-9),  # nothing to evaluate on, which tokenizing finds out
        ("data.cache_dir", "/proc/nowhere"),
        ("checkpoint.init_from", "nowhere"),
        ("optim.warmup_steps", 12),
    ],
)
@pytest.mark.parametrize("existing", [(), ("run",), ("run/lock", "run/goodput.json")])
def test_a_start_that_fails_leaves_nothing_behind(
    train_one, config, tmp_path, monkeypatch, key, value, existing
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, short_dot_txt="[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nand\n")
    directory = tmp_path / "deep/er/run"
    for name in existing:
        path = directory.parent / name
        path.mkdir(parents=True) if path == directory else write(directory, **{path.name: "pid 1"})
    section, name = key.split(".")
    config[section][name] = value
    before = contents(tmp_path)
    with pytest.raises(EXPECTED):
        train_one(config, directory)
    after = contents(tmp_path)
    for name in ("deep/er/run/lock", "deep/er/run/goodput.json"):  # may say who was here last
        assert (name in after) == (name in before)
        after.pop(name, None), before.pop(name, None)
    assert after == before


def test_a_run_without_a_checkpoint_is_free_and_its_rows_are_dropped(
    train_one, config, tmp_path, capfd
):
    leave(tmp_path, config, metrics_dot_jsonl='{"step": 0}\n{"step": 4}\n', notes="of mine")
    config.optim.clip_factor, config.train.num_steps = 2.0, 2
    config.train.log_every_steps, config.train.eval_every_steps = 1, 0
    train_one(config, tmp_path)
    said = capfd.readouterr().err
    assert f"{tmp_path} has no checkpoint, so the run starts at step 0; the 2 rows" in said
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 2]
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["clip_factor"] == 2.0
    assert (tmp_path / "notes").read_text() == "of mine"


def test_results_of_a_run_whose_checkpoints_were_removed_are_put_aside(config, tmp_path):
    leave(tmp_path, config, metrics_dot_jsonl='{"step": 12}\n', results_dot_json="{}")
    said = []
    with Claim(tmp_path, config) as claim:
        claim.begin(0, said.append)
    assert (tmp_path / "metrics.old.jsonl").read_text() == '{"step": 12}\n'
    assert (tmp_path / "results.old.json").read_text() == "{}"
    assert not (tmp_path / "results.json").exists()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis_dot_tex": "precious"}, "is not empty and has no config.json"),
        ({"config_dot_json": '{"model_type": "bert"}'}, "is not empty and has no config.json"),
        ({"config_dot_json": "{"}, "is not empty and has no config.json"),
        ({"lock": "of my own", "vocab_dot_txt": "and"}, "is not empty and has no config.json"),
        ({"checkpoints__5__params": ""}, "config.json is missing"),
        ({"checkpoints__5__params": "", "config_dot_json": "{"}, "config.json cannot be read"),
        ({"checkpoints__5__params": "", "config_dot_json": "[]"}, "config.json holds no object"),
    ],
)
def test_what_is_no_run_is_refused_and_left_alone(train_one, config, tmp_path, files, message):
    write(tmp_path, **files)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=message):
        train_one(config, tmp_path)
    assert contents(tmp_path) == before


def test_a_file_is_refused(config, tmp_path):
    write(tmp_path, run="a file")
    with pytest.raises(ConfigError, match="run is a file; name a directory"):
        Claim(tmp_path / "run", config)


def test_a_workdir_in_use_is_refused_and_free_again_afterwards(config, tmp_path):
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
        for _ in range(30):
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
    assert {"in use by another run" in sentence for sentence in refused} <= {True}
    assert len(most) + len(refused) == 120
    assert not list(tmp_path.rglob("lock"))
