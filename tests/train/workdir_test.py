"""Workdirs of earlier versions: keys that these did not know."""

import json

import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.files import flatten
from sibert_jax.train import workdir
from sibert_jax.train.claim import Claim


def test_a_run_of_an_earlier_version_resumes_with_what_it_did_and_with_nothing_else(
    config, tmp_path
):
    settings = config.to_dict()
    for key in workdir.ADDED:
        section, name = key.split(".")
        del settings[section][name]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "checkpoints/5").mkdir(parents=True)
    Claim(tmp_path, config).close()
    config.task.loss_blocks = 2
    with pytest.raises(ConfigError, match=r"task.loss_blocks: 1 -> 2"):
        Claim(tmp_path, config)


def test_every_added_key_has_the_value_of_the_default_config(config):
    flat = flatten(config.to_dict())
    assert {key: flat[key] for key in workdir.ADDED} == workdir.ADDED
