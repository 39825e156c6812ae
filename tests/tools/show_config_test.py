"""Every key is shown with its value, where that was set, and its meaning."""

import json

import pytest

from sibert_jax.files import flatten
from sibert_jax.tools.show_config import config_lines
from sibert_jax.train.config import default_config

GIVEN = ("--config.seed=3", "--noconfig.model.scan_layers")


@pytest.fixture(scope="module")
def shown():
    rows = (line.split("  [", 1) for line in config_lines("mini:bert", GIVEN))
    return {pair.split(" = ")[0]: (pair.split(" = ")[1], "[" + rest) for pair, rest in rows}


def test_every_key_is_shown_once(shown):
    assert sorted(shown) == sorted(flatten(default_config().to_dict()))


@pytest.mark.parametrize(
    ("key", "value", "rest"),
    [
        ("seed", "3", "[command line]  # random seed: initial parameters, "),
        ("model.scan_layers", "False", "[command line]  # "),
        ("model.arch", "'bert'", "[config file]  # architecture (one of sibert, "),
        ("optim.head.name", "'same'", "[default of pretraining]  # "),
        (
            "model.width",
            "128",
            "[default]  # features per token (D); must be a multiple of num_heads (at least 1)",
        ),
        ("train.microbatches", "1", "[default]  # gradient accumulation: number of parts "),
    ],
)
def test_the_value_of_a_key_and_where_it_was_set(shown, key, value, rest):
    assert shown[key][0] == value
    assert shown[key][1].startswith(rest)


def test_open_keys_are_those_of_the_run_to_start_from(tmp_path):
    config = default_config()
    config.model.update(arch="sibert", width=64, depth=5, num_heads=4, ffn_width=128, max_len=64)
    config.model.update(vocab_size=100, num_segments=2, qkv_bias=False, branch_scaling="depth")
    config.model.update(norm_eps=1e-6)
    config.data.seq_len = 64
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "vocab.txt").write_text("")
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    lines = config_lines("glue", [f"--config.checkpoint.init_from={tmp_path}"])
    assert any(line.startswith("model.depth = 5  [checkpoint.init_from]") for line in lines)
    lines = config_lines("glue", [], tmp_path)
    assert any(line.startswith("model.depth = 5  [workdir]") for line in lines)
