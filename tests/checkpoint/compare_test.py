"""A difference between what is stored and what is wanted names the config key behind it."""

import jax
import pytest

from sibert_jax.checkpoint import CheckpointError
from sibert_jax.checkpoint.compare import check_same_leaves
from sibert_jax.checkpoint.verify import named
from sibert_jax.train import build
from sibert_jax.train.config import default_config


def params(change=lambda config: None):
    config = default_config()
    config.model.update({"vocab_size": 64, "width": 16, "ffn_width": 32, "max_len": 32, "depth": 3})
    config.data.seq_len = 32
    config.optim.name, config.optim.eta_lambda, config.optim.learning_rate = "adamw", 0.0, 0.1
    change(config)
    run = build.run_config(config)
    task = build.bare_task(run)
    batch = task.abstract_batch(1, run.seq_len)
    return named(jax.eval_shape(task.init, jax.random.key(0), batch))


CHANGES = {
    "model.vocab_size": ("vocab_size", 72),
    "model.width": ("width", 32),
    "model.ffn_width": ("ffn_width", 48),
    "model.max_len": ("max_len", 40),
    "model.num_heads": ("num_heads", 4),
    "model.depth": ("depth", 2),
    "model.qkv_bias": ("qkv_bias", True),
    "model.scan_layers": ("scan_layers", False),
}


def as_stored(leaves):
    return {n: {"shape": list(x.shape), "dtype": str(x.dtype)} for n, x in leaves.items()}


@pytest.fixture(scope="module")
def plain():
    return params()


@pytest.mark.parametrize("key", CHANGES)
def test_a_model_key_that_differs_is_named(plain, key):
    name, value = CHANGES[key]
    changed = params(lambda config: config.model.update({name: value}))
    for found, wanted in ((plain, changed), (changed, plain)):
        with pytest.raises(CheckpointError) as error:
            check_same_leaves("x/checkpoints/12", as_stored(found), wanted)
        assert key in str(error.value).split("(probably ")[1]
        assert "x/checkpoints/12" in str(error.value)


def test_what_is_the_same_passes_and_a_cast_does_not(plain):
    wanted, stored = plain, as_stored(plain)
    check_same_leaves("x", stored, wanted)
    stored["head/output"]["dtype"] = "bfloat16"
    with pytest.raises(CheckpointError, match=r"head/output of x is \(64, 16\) bfloat16, wanted"):
        check_same_leaves("x", stored, wanted)
