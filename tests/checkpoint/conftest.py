"""A small run with two checkpoints, of a state such as the loop's: nested, bfloat16, scalars."""

import pathlib

import jax
import jax.numpy as jnp
import optax
import pytest

from sibert_jax.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
DESCRIPTION = {
    "git_commit": "0123456789abcdef",
    "mesh": {"data": 1},
    "vocab_hash": "a" * 64,
    "data_fingerprint": "f" * 32,
    "learning_rate": 0.1,
    "config": {"seed": 0, "model": {"width": 4, "dropout": 0.1}},
}


def make_state(step: int):
    """Parameters and the rest, different at each step and nowhere constant."""
    keys = iter(jax.random.split(jax.random.key(step), 8))
    params = {
        "encoder": {
            "embed": {"token": jax.random.normal(next(keys), (11, 4))},
            "stem": {"kernel": jax.random.normal(next(keys), (4, 4), jnp.bfloat16)},
        },
        "head": {
            "pooler": {"kernel": jax.random.normal(next(keys), (4, 4))},
            "nsp": {"kernel": jax.random.normal(next(keys), (4, 2))},
        },
    }
    opt_state = optax.adam(0.1).init(params["head"])
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), opt_state)
    return params, {"step": jnp.asarray(step), "opt_state": opt_state, "bad": jnp.asarray(False)}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def write(directory, steps, keep=3):
    with Checkpoints(directory, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, *make_state(step), DESCRIPTION | {"learning_rate": 0.1 * step})


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """A workdir with checkpoints of steps 1 and 2; to be copied before it is changed."""
    workdir = tmp_path_factory.mktemp("two")
    write(workdir / "checkpoints", (1, 2))
    return workdir
