"""Configurations by name and path, and the sentence for each that cannot be loaded."""

import pathlib

import pytest

from sibert_jax.config_file import find_config, load_config
from sibert_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "file", "variant"),
    [
        ("demo", "demo.py", None),
        ("mini:bert", "mini.py", "bert"),
        ("glue:task=sst2,arch=bert", "glue.py", "task=sst2,arch=bert"),
        (f"{ROOT}/configs/mini.py:bert", "mini.py", "bert"),
    ],
)
def test_a_bare_name_and_a_path_find_the_same_file(name, file, variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, found = find_config(name)
    assert path.samefile(ROOT / "configs" / file)
    assert found == variant
    assert load_config(name).train.global_batch_size == 32


def test_the_home_directory_is_expanded_and_a_file_here_wins_over_a_shipped_name(
    tmp_path, monkeypatch
):
    (tmp_path / "demo").write_text("from sibert_jax.configs.demo import get_config")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_config("~/demo") == (tmp_path / "demo", None)
    monkeypatch.chdir(tmp_path)
    assert find_config("demo")[0] == pathlib.Path("demo")


def test_overrides_have_the_type_of_their_key_and_the_last_one_counts():
    words = "--config.seed=1 --config.seed 2 --config.optim.learning_rate=1 --noconfig.task.nsp"
    config = load_config("demo", [*words.split(), "--config.mesh.data", "-1"])
    assert (config.seed, config.optim.learning_rate, config.task.nsp) == (2, 1.0, False)
    with pytest.raises(AttributeError, match="modle"):
        config.modle = 1  # locked


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("demo", "--config.modle.width=3", "no key 'modle'; did you mean 'model'?"),
        ("demo", "--config.optim.lerning_rate=1", "in optim; did you mean 'optim.learning_rate'"),
        ("demo", "--config.optim.head.lr=1", "no key 'lr' in optim.head; there are learning_rate"),
        ("demo", "--config.seed.x=1", "no key 'seed.x': seed is a value, not a section."),
        ("demo", "--config.model=3", "'model' is a section of the config; set one of its keys."),
        ("demo", "--config.train.num_steps=many", "num_steps=many: invalid literal for int"),
        ("demo", "config.seed=3", "unknown argument 'config.seed=3'"),
        ("demo", "--seed=3", "Unknown command line flag 'seed'"),
        ("nowhere.py", None, "no file 'nowhere.py', and no configuration of that name; there are "),
        ("dmeo", None, "did you mean 'demo'?"),
        ("configs", None, "no file 'configs'"),
        (
            "mini:brt",
            None,
            "configs/mini.py:brt is unknown; there are sibert, paper, bert, bert_prenorm.",
        ),
        ("demo:x", None, "get_config() takes 0 positional arguments but 1 was given"),
    ],
)
def test_a_name_or_an_override_that_is_wrong_is_told(name, override, sentence, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as error:
        load_config(name, [override] if override else [])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(:\n", "x.py, line 1: invalid syntax."),
        ("import os\nimport no_such_module\n", "x.py, line 2: ModuleNotFoundError: No module nam"),
        ("\n\nvalue = 1 / 0\n", "x.py, line 3: ZeroDivisionError: division by zero."),
        ("value = 1\n", "x.py has no function get_config()."),
        ("def get_config():\n    return {}\n", "get_config() returns dict, not a ConfigDict"),
        ("def get_config():\n    return width\n", "x.py, line 2: NameError: name 'width' is not"),
        ("def get_config():\n    raise ValueError('no\\nway')\n", "line 2: ValueError: no way."),
        (b"\xff\xfe", "x.py"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_its_line(text, sentence, tmp_path):
    path = tmp_path / "x.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
