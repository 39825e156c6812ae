"""What is wrong with a file is told with the key that names it."""

import pytest

from sibert_jax.data import DataError
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task


@pytest.mark.parametrize("key", ["path", "valid_path", "test_path"])
def test_a_file_that_is_not_there_is_named_with_its_key(config, write_pairs, key):
    for name in ("path", "valid_path", "test_path"):
        labels = ("entailment", "not_entailment")
        config.data[name] = write_pairs(f"{name}.tsv", labels, num_examples=8)
    config.data[key] = "absent/*.tsv"
    with pytest.raises(DataError, match=rf"^data\.{key}: no file matches the glob 'absent/\*"):
        load_task(run_config(resolve(config)), progress=lambda line: None)
